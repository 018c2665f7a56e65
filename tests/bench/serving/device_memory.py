"""How much memory of a CUDA device is taken, as its driver says: no CUDA toolkit and no NVML."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DRIVER = "libcuda.so.1"
MB = 2**20


@contextmanager
def device_memory(device: str) -> Iterator[Callable[[], int]]:
    """A reading of the bytes taken on 'cuda:0', by all processes together.

    What the reading itself needs, a context of the driver, is taken before and stays to the end.
    Raises RuntimeError where there is no driver or no such device.
    """
    ordinal = int(device.removeprefix("cuda:"))
    handle, context = ctypes.c_int(), ctypes.c_void_p()
    driver = _driver()
    _call(driver, "cuDeviceGet", ctypes.byref(handle), ordinal)
    _call(driver, "cuDevicePrimaryCtxRetain", ctypes.byref(context), handle)

    def taken() -> int:
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        _call(driver, "cuCtxPushCurrent_v2", context)
        _call(driver, "cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        _call(driver, "cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))
        return total.value - free.value

    try:
        yield taken
    finally:
        _call(driver, "cuDevicePrimaryCtxRelease_v2", handle)


def cuda_of_driver() -> str:
    """The newest CUDA that the driver runs, e.g. '13.0'. Raises RuntimeError without a driver."""
    version = ctypes.c_int()
    _call(_driver(), "cuDriverGetVersion", ctypes.byref(version))
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def _driver() -> ctypes.CDLL:
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError as error:
        raise RuntimeError(f"expected NVIDIA's driver, got: {error}") from error
    _call(driver, "cuInit", 0)
    return driver


def _call(driver: ctypes.CDLL, name: str, *arguments: object) -> None:
    code = getattr(driver, name)(*arguments)
    if code != 0:
        raise RuntimeError(f"{name} of {DRIVER} failed with CUDA error {code}")
