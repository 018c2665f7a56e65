"""The image `serve` with DEVICE=cuda: the linker finds all but the driver. Several GB, no GPU."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from amiss_serving.devices import driver_device_count

from .conftest import Built
from .container import Container, running

pytestmark = [pytest.mark.image_cuda, pytest.mark.timeout(3600)]  # the test builds
DRIVER = {"libcuda.so.1"}  # the host's; its container runtime brings it in
# Prints what ldd misses of the CUDA provider, and what the process has after ONNX Runtime's preload
PROGRAM = """
import json, pathlib, subprocess, onnxruntime
provider = pathlib.Path(onnxruntime.__file__).parent / "capi/libonnxruntime_providers_cuda.so"
told = subprocess.run(["ldd", provider], check=True, capture_output=True, text=True).stdout
missing = [line.split()[0] for line in told.splitlines() if line.endswith("not found")]
onnxruntime.preload_dlls()
maps = pathlib.Path("/proc/self/maps").read_text().splitlines()
print(json.dumps([missing, sorted({line.rpartition("/")[2] for line in maps if "/" in line})]))
"""


@pytest.fixture(scope="module")
def container(built: Callable[..., Built], models: Path) -> Iterator[Container]:
    """The service of the CUDA image, on this machine's GPU or without one."""
    image = built("serve", "cuda")
    with running(image.image, image.tree, models=models, env={"AMISS_TOKEN": "x"}) as started:
        started.wait_until_healthy()
        yield started


def test_all_but_the_driver_is_there(container: Container) -> None:
    """What the CUDA provider needs and ldd misses is loaded by preload_dlls, the driver aside."""
    missing, loaded = json.loads(container.execute("python3", "-c", PROGRAM).stdout)
    assert "libcudart.so.13" in loaded
    assert set(missing) - set(loaded) <= DRIVER


def test_without_a_gpu_it_serves_on_the_cpu(container: Container) -> None:
    """Where there is no device the image serves all the same, and one line says on what."""
    if driver_device_count() > 0:
        pytest.skip("this machine has a CUDA device")
    assert container.log.count("device cpu (no CUDA device)") == 1
