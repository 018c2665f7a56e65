"""Where models run: the CPU, or a CUDA device that is there and works."""

import ctypes
import re
from collections.abc import Callable
from dataclasses import dataclass

from amiss_export.errors import BadInput

CPU = "cpu"
_DEVICE = re.compile(r"cpu|cuda:(0|[1-9][0-9]?)")


@dataclass(frozen=True)
class Device:
    """Where models run: name 'cpu' or 'cuda:0', and why, for the one log line."""

    name: str
    reason: str = ""

    def __str__(self) -> str:
        return f"device {self.name} ({self.reason})" if self.reason else f"device {self.name}"


def pick_device(asked: str, *, there: Callable[[], int], works: Callable[[], bool]) -> Device:
    """The device for 'auto', 'cpu' or 'cuda:0'. Raises BadInput when it is not there.

    there: how many CUDA devices the runtime sees. works: whether it can use the first; asked last,
    and only for 'auto': a driver and a device are not yet libraries of the right version.
    """
    match = _DEVICE.fullmatch(asked)
    if match is None and asked != "auto":
        raise BadInput(f"device must be auto, cpu or cuda:0, got {asked!r}")
    if asked == CPU:
        return Device(CPU)
    count = there()
    if match is not None:
        if int(match[1]) >= count:
            raise BadInput(
                f"device {asked!r} asked for, but there are {count} CUDA devices; use auto"
            )
        return Device(asked)
    if count == 0:
        return Device(CPU, "no CUDA device")
    if not works():
        return Device(CPU, "a CUDA device, but the runtime cannot use it")
    return Device("cuda:0")


def driver_device_count() -> int:
    """CUDA devices that the driver sees; 0 where there is no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
