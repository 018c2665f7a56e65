"""The container's health command: what it asks, where, and what it says."""

import asyncio
import io
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import amiss_serving
from amiss_serving.probe import main
from amiss_serving.server import serving
from bundle_factory import write_table_bundle

from .conftest import free_ports


async def probe(environ: Mapping[str, str]) -> tuple[int, str]:
    """Exit code and line of the probe, asked from another thread than the service's."""
    out = io.StringIO()
    code = await asyncio.to_thread(main, environ, out)
    return code, out.getvalue()


async def test_a_service_with_detectors_is_healthy(tmp_path: Path) -> None:
    """Exit code 0 at the port that AMISS_HTTP_PORT names, whatever address it listens on."""
    write_table_bundle(tmp_path)
    async with serving(free_ports(tmp_path)) as addresses:
        port = addresses.http.rpartition(":")[2]
        for host in ("127.0.0.1", "0.0.0.0", ""):
            code, _ = await probe({"AMISS_HTTP_PORT": port, "AMISS_HOST": host})
            assert code == 0


async def test_a_service_without_detectors_is_not(tmp_path: Path) -> None:
    """Exit code 1 and the service's own reason in one line."""
    async with serving(free_ports(tmp_path)) as addresses:
        code, line = await probe({"AMISS_HTTP_PORT": addresses.http.rpartition(":")[2]})
    assert code == 1
    assert line.count("\n") == 1
    assert "no detector" in line


async def test_a_unix_socket_is_asked_where_there_is_one(tmp_path: Path) -> None:
    """AMISS_HTTP_SOCKET goes before the port, as it does in the service."""
    write_table_bundle(tmp_path / "models")
    path = str(tmp_path / "http.sock")
    async with serving(free_ports(tmp_path / "models", http_socket=path)):
        assert (await probe({"AMISS_HTTP_SOCKET": path, "AMISS_HTTP_PORT": "1"}))[0] == 0
    assert (await probe({"AMISS_HTTP_SOCKET": path}))[0] == 1


async def test_nothing_there_is_one_line(tmp_path: Path) -> None:
    """A refused connection, or a port that is no number, is exit code 1 and a line."""
    for port in ("1", "http"):
        code, line = await probe({"AMISS_HTTP_PORT": port})
        assert (code, line.count("\n")) == (1, 1)


def test_it_imports_the_standard_library_alone() -> None:
    """Run as the image runs it, it loads no module from outside but its own package."""
    program = (
        "import sys, amiss_serving.probe; "
        "print([n for n in sys.modules if n.split('.')[0] not in sys.stdlib_module_names])"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],  # -S: where others are installed is not looked at
        env={"PYTHONPATH": str(Path(amiss_serving.__file__).parents[1])},
        check=True,
        capture_output=True,
        text=True,
    )
    loaded = set(eval(done.stdout)) - {"__main__"}  # noqa: S307  our own list of names
    assert loaded == {"amiss_serving", "amiss_serving.probe"}
