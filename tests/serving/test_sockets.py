"""Unix sockets: who may open them, what becomes of old ones, and real clients that use them."""

import asyncio
import os
import socket
import stat
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from amiss_client import AsyncClient, Client, InvalidInput, Unauthenticated
from amiss_export.errors import BadInput
from amiss_serving.server import Addresses, serving
from amiss_serving.sockets import listen_unix, unix_socket
from bundle_factory import normal_rows, table_scores, write_table_bundle

from .conftest import TOKEN, free_ports

OPTION = "--http-socket"


@dataclass(frozen=True)
class Local:
    """A service on two sockets in `folder`, behind TOKEN."""

    addresses: Addresses
    folder: Path


@pytest_asyncio.fixture
async def local(tmp_path: Path) -> AsyncIterator[Local]:
    write_table_bundle(tmp_path / "models")
    settings = free_ports(
        tmp_path / "models",
        http_socket=str(tmp_path / "http.sock"),
        grpc_socket=str(tmp_path / "grpc.sock"),
        token=TOKEN,
    )
    async with serving(settings) as addresses:
        yield Local(addresses, tmp_path)


async def curl(folder: Path, path: str, *options: str) -> str:
    """What curl prints: the body, then the status."""
    process = await asyncio.create_subprocess_exec(
        *("curl", "-s", "-w", "\n%{http_code}", "--unix-socket", str(folder / "http.sock")),
        *options,
        f"http://localhost{path}",
        stdout=subprocess.PIPE,
    )
    out, _ = await process.communicate()
    return out.decode()


async def test_curl_scores_over_a_unix_socket(local: Local) -> None:
    """curl --unix-socket is answered like any caller: 401 without the token, 200 with it."""
    data = ("--json", '{"rows": [[0, 1, 2]]}')
    assert (await curl(local.folder, "/readyz")).endswith("\n200")
    assert (await curl(local.folder, "/v1/detectors/table:score", *data)).endswith("\n401")
    given = ("-H", f"Authorization: Bearer {TOKEN}")
    answer = await curl(local.folder, "/v1/detectors/table:score", *data, *given)
    assert answer.endswith("\n200")
    assert '"score"' in answer


async def test_both_clients_score_over_a_unix_socket(local: Local) -> None:
    """The address unix:PATH, as the service prints it, is what the clients take."""
    address = f"unix:{local.folder / 'grpc.sock'}"
    assert local.addresses.grpc == address
    x = normal_rows(5)
    async with AsyncClient(address, token=TOKEN) as awaited:
        scores = await awaited.score_tensor("table", x)
    np.testing.assert_allclose(scores.score, table_scores(x), rtol=1e-6)

    def ask() -> Any:
        with Client(address, token=TOKEN) as client:
            return client.score_tensor("table", x)

    assert (await asyncio.to_thread(ask)).score.tolist() == scores.score.tolist()
    async with AsyncClient(address, token="wrong") as stranger:
        with pytest.raises(Unauthenticated):
            await stranger.list_detectors()


@pytest.mark.parametrize("address", ["unix:", "unix", "/run/a.sock"])
def test_the_client_refuses_what_is_no_address(address: str) -> None:
    """An address without a path, or a path without unix:, never leaves the client."""
    with pytest.raises(InvalidInput, match=r"HOST:PORT or unix:PATH"):
        Client(address)


async def test_sockets_are_the_owners_and_gone_afterwards(tmp_path: Path) -> None:
    """Both files have mode 0600 whatever the umask, and none is left when the service ends."""
    write_table_bundle(tmp_path / "models")
    paths = [tmp_path / "http.sock", tmp_path / "grpc.sock"]
    settings = free_ports(tmp_path / "models", http_socket=str(paths[0]), grpc_socket=str(paths[1]))
    before = os.umask(0)
    try:
        async with serving(settings):
            for path in paths:
                mode = path.stat().st_mode
                assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o600)
            assert sorted(p.name for p in tmp_path.iterdir()) == [
                "grpc.sock",
                "http.sock",
                "models",
            ]
    finally:
        os.umask(before)
    assert [p.name for p in tmp_path.iterdir()] == ["models"]


@pytest.mark.parametrize("option", ["http_socket", "grpc_socket"])
async def test_a_living_socket_is_refused_and_a_dead_ones_file_replaced(
    tmp_path: Path, option: str
) -> None:
    """A second service on the path is refused by name; one after a killed process comes up."""
    write_table_bundle(tmp_path / "models")
    path = tmp_path / "a.sock"
    settings = free_ports(tmp_path / "models", **{option: str(path)})
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    assert path.exists()
    flag = f"--{option.replace('_', '-')}"
    async with serving(settings):
        with pytest.raises(BadInput, match=f"{flag} {path} is in use"):
            async with serving(settings):
                pass
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
    assert not path.exists()


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    """A file at the path is refused and stays as it was."""
    file = tmp_path / "precious"
    file.write_text("data")
    with (
        pytest.raises(BadInput, match="is no socket"),
        unix_socket(str(file), listen_unix, option=OPTION),
    ):
        pass
    assert file.read_text() == "data"


@pytest.mark.parametrize("name", ["no/such/folder/a.sock", "x" * 200])
def test_a_path_that_cannot_be_bound_is_named(tmp_path: Path, name: str) -> None:
    """The refusal names the option and the path, and leaves nothing behind."""
    with (
        pytest.raises(BadInput, match=f"{OPTION} .*{name[-20:]}"),
        unix_socket(str(tmp_path / name), listen_unix, option=OPTION),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_successors_socket_is_not_removed(tmp_path: Path) -> None:
    """Who ends after another took its place leaves the other's file."""
    path = tmp_path / "a.sock"
    with unix_socket(str(path), listen_unix, option=OPTION) as first:
        first.close()
        path.unlink()
        successor = listen_unix(str(path))
    assert path.exists()
    successor.close()
