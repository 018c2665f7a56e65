"""The files that TorchServe is started with. That it obeys them is test_torchserve_process."""

import json
import socket
import stat
from dataclasses import astuple, replace
from pathlib import Path

import pytest

from amiss_export.errors import BadInput
from amiss_serving.torchserve.archives import Archive
from amiss_serving.torchserve.config import ANY_PORTS, Options, Ports, write_config

ARCHIVE = Archive("a", "3", "file.mar")


def properties(state: Path, options: Options) -> dict[str, str]:
    write_config(state, [ARCHIVE], options=options, ports=Ports())
    lines = (state / "config.properties").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_only_the_owner_may_read_the_files(tmp_path: Path) -> None:
    """Both files have mode 0600."""
    properties(tmp_path, Options())
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"config.properties": 0o600, "log4j2.xml": 0o600}


def test_every_door_is_on_loopback(tmp_path: Path) -> None:
    """All five addresses are 127.0.0.1, with TorchServe's usual ports."""
    written = properties(tmp_path, Options())
    addresses = {key: value for key, value in written.items() if "address" in key}
    assert len(addresses) == 5
    assert all("127.0.0.1" in value for value in addresses.values())
    assert written["inference_address"] == "http://127.0.0.1:8080"


def test_the_limits_are_those_of_the_options(tmp_path: Path) -> None:
    """Queue, sizes and each model's workers, batches and timeouts are as asked."""
    options = Options(
        workers=2, batch_size=4, batch_delay_ms=7, job_queue_size=9, response_timeout_s=33
    )
    written = properties(tmp_path, options)
    assert (written["job_queue_size"], written["number_of_gpu"]) == ("9", "0")
    model = json.loads(written["models"])["a"]["3"]
    assert (model["marName"], model["minWorkers"], model["maxWorkers"]) == ("file.mar", 2, 2)
    assert (model["batchSize"], model["maxBatchDelay"], model["responseTimeout"]) == (4, 7, 33)
    assert properties(tmp_path, replace(options, device="cuda:1"))["number_of_gpu"] == "1"


def test_zeros_become_free_ports_that_differ() -> None:
    """Five zeros give five ports, the given ones stay."""
    assert len(set(astuple(ANY_PORTS.chosen()))) == 5
    free = ANY_PORTS.chosen().grpc
    assert replace(ANY_PORTS, grpc=free).chosen().grpc == free


def test_a_port_in_use_is_named_with_its_option() -> None:
    """The error says which port is taken and which option chooses another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadInput, match=rf"port {port} .*--grpc-management-port"):
            replace(ANY_PORTS, grpc_management=port).chosen()
