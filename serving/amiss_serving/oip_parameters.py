"""Parameters of the Open Inference Protocol: one is honoured, those that would change the answer
are refused by name, and the others are ignored, as the protocol has it."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from amiss_export.errors import BadInput

Value = bool | int | float | str
NONE: Mapping[str, Value] = MappingProxyType({})
_STATELESS = "detectors keep nothing from one request to the next"
_SHARED_MEMORY = "send the tensor itself"
REQUEST_REFUSED = {
    "sequence_id": _STATELESS,
    "sequence_start": _STATELESS,
    "sequence_end": _STATELESS,
    "triton_enable_empty_final_response": "every request has exactly one response",
}
TENSOR_REFUSED = {
    "classification": "scores are no class probabilities; ask for is_anomaly",
    "shared_memory_region": _SHARED_MEMORY,
    "shared_memory_offset": _SHARED_MEMORY,
    "shared_memory_byte_size": _SHARED_MEMORY,
}


def check_parameters(parameters: Mapping[str, Value], refused: Mapping[str, str]) -> None:
    """Nothing, when none of the refused is set. Raises BadInput naming it and why."""
    for name, why in refused.items():
        if parameters.get(name):  # their zeros and falses are how clients say "not used"
            raise BadInput(f"parameter {name!r} is not supported: {why}; leave it out")


def check_load_parameters(names: Iterable[str]) -> None:
    """Nothing, when there are none. Raises BadInput: they would bring files or other settings."""
    for name in names:
        raise BadInput(
            f"a load takes no parameters, got {name!r:.80}; put the whole bundle into the models "
            "folder"
        )


def timeout_of(parameters: Mapping[str, Value]) -> float | None:
    """Seconds the request may take, from `timeout` in microseconds; None when it sets no bound."""
    timeout = parameters.get("timeout", 0)
    if isinstance(timeout, bool) or not isinstance(timeout, int) or timeout < 0:
        raise BadInput(f"parameter 'timeout' must be microseconds >= 0, got {timeout!r:.80}")
    return timeout / 1e6 or None
