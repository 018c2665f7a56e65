"""From an archive that TorchServe has unpacked to a detector that is ready to score."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amiss_export.bundle import ONNX
from amiss_export.errors import BadInput
from amiss_export.to_mar import read_unpacked
from amiss_serving.detector import LoadedDetector, open_bundle
from amiss_serving.devices import CPU, Device
from amiss_serving.runtimes import (
    RuntimeKind,
    RuntimeOptions,
    choose_device,
    spare_device_memory,
    warm_up_rows,
)
from amiss_serving.torchserve.batch import MAX_BATCH_ROWS

THREADS_VARIABLE = "AMISS_THREADS"
# TorchServe would parse JSON and text itself, and let through what our own door refuses.
_DECODE_VARIABLE = "TS_DECODE_INPUT_REQUEST"
logger = logging.getLogger(__name__)


def open_unpacked(properties: Mapping[str, Any], manifest: Mapping[str, Any]) -> LoadedDetector:
    """The detector of an archive, checked, tried and warmed up.

    properties: of the worker, model_dir and gpu_id, the number of its CUDA device or None.
    manifest: the archive's, as TorchServe reads it. Raises BundleRefused and BadInput.
    """
    os.environ[_DECODE_VARIABLE] = "false"
    bundle = read_unpacked(Path(properties["model_dir"]), manifest)
    kind: RuntimeKind = "onnx" if bundle.model == ONNX else "torchscript"
    spare_device_memory(kind)
    device = _device(properties.get("gpu_id"), kind)
    logger.info("%s@%d runs in %s, %s", bundle.name, bundle.version, kind, device)
    sizes = warm_up_rows(device, MAX_BATCH_ROWS)
    options = RuntimeOptions(kind=kind, device=device.name, threads=_threads(), warm_up_rows=sizes)
    return open_bundle(bundle, options)


def _device(gpu_id: int | None, kind: RuntimeKind) -> Device:
    """The CUDA device that TorchServe gave the worker, if the runtime can use it, else the CPU."""
    if gpu_id is None:
        return Device(CPU, "TorchServe gave no CUDA device")
    found = choose_device("auto", kind)
    return found if found.name == CPU else Device(f"cuda:{gpu_id}")


def _threads() -> int:
    """CPU threads inside one run of the model."""
    text = os.environ.get(THREADS_VARIABLE, "1")
    if not text.isdecimal() or int(text) < 1:
        raise BadInput(f"{THREADS_VARIABLE} must be a number of threads >= 1, got {text!r}")
    return int(text)
