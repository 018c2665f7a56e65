"""What the Open Inference Protocol tells about a service, as plain values: both doors send these.

The keys are the protocol's: JSON objects as they stand, and the fields of the gRPC messages.
"""

from importlib.metadata import version as installed_version
from typing import Any

from amiss_serving.detector import LoadedDetector
from amiss_serving.oip_signature import Tensor, input_of, outputs_of
from amiss_serving.onnx_runtime import OnnxRuntime
from amiss_serving.repository import DetectorRepository
from amiss_serving.service import Service
from amiss_serving.statistics import Duration

Document = dict[str, Any]
NAME = "amiss"
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics")
READY = "READY"
_NEVER = {"count": 0, "ns": 0}


def server_metadata() -> Document:
    """Name, version and extensions of the server."""
    return {"name": NAME, "version": installed_version("amiss"), "extensions": list(EXTENSIONS)}


def model_metadata(service: Service, detector: LoadedDetector) -> Document:
    """What the detector takes and gives, and which versions of its name are being served."""
    served = service.repository.detectors()
    return {
        "name": detector.name,
        "versions": [str(other.version) for other in served if other.name == detector.name],
        "platform": platform_of(detector),
        "inputs": [_metadata(input_of(detector.spec))],
        "outputs": [_metadata(output) for output in outputs_of(detector.spec)],
    }


def model_config(service: Service, detector: LoadedDetector) -> Document:
    """The detector as load generators see it: lengths of one row, and rows in one request."""
    platform = platform_of(detector)
    return {
        "name": detector.name,
        "platform": platform,
        "backend": platform.partition("_")[0],
        "max_batch_size": service.limits.max_rows,
        "input": [_config(input_of(detector.spec))],
        "output": [_config(output) for output in outputs_of(detector.spec)],
    }


def platform_of(detector: LoadedDetector) -> str:
    """The format of the model, as the protocol spells it."""
    is_onnx = isinstance(detector.runtime, OnnxRuntime)
    return "onnx_onnxv1" if is_onnx else "pytorch_torchscript"


def model_statistics(service: Service, name: str, version: str) -> Document:
    """Counts and times of one version, of every version of a name, or of all there are.

    Raises DetectorNotFound.
    """
    found = service.repository.detectors()
    if name:
        asked = service.repository.resolve(name, version)
        found = [asked] if version else [d for d in found if d.name == name]
    return {"model_stats": [_statistics(service, detector) for detector in found]}


def repository_index(repository: DetectorRepository, *, ready: bool) -> list[Document]:
    """Every version on disk or in memory, or those that can score alone."""
    return [
        {
            "name": entry.name,
            "version": str(entry.version),
            "state": entry.state,
            "reason": entry.reason,
        }
        for entry in repository.index()
        if entry.state == READY or not ready
    ]


def _metadata(tensor: Tensor) -> Document:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _config(tensor: Tensor) -> Document:
    return {
        "name": tensor.name,
        "data_type": f"TYPE_{tensor.datatype}",
        "dims": list(tensor.shape[1:]) or [1],
    }


def _statistics(service: Service, detector: LoadedDetector) -> Document:
    statistics = service.metrics.model(detector.name, detector.version).statistics
    return {
        "name": detector.name,
        "version": str(detector.version),
        "last_inference": statistics.last_inference_ms,
        "inference_count": statistics.inference_count,
        "execution_count": statistics.compute_infer.read()[0],
        "inference_stats": {
            "success": _duration(statistics.success),
            "fail": _duration(statistics.fail),
            "queue": _duration(statistics.queue),
            "compute_input": _duration(statistics.compute_input),
            "compute_infer": _duration(statistics.compute_infer),
            "compute_output": _duration(statistics.compute_output),
            "cache_hit": _NEVER,
            "cache_miss": _NEVER,
        },
        "batch_stats": [
            {
                "batch_size": rows,
                "compute_input": _NEVER,
                "compute_infer": _duration(duration),
                "compute_output": _NEVER,
            }
            for rows, duration in sorted(statistics.batches.items())
        ],
    }


def _duration(duration: Duration) -> Document:
    count, ns = duration.read()
    return {"count": count, "ns": ns}
