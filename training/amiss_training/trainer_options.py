"""What Lightning's Trainer is told besides what the user asks of it, and what it says to him."""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.profilers import PassThroughProfiler

from amiss_export.errors import BadInput
from amiss_training.detectors.module import Detector

MAX_EPOCHS = 100
GRADIENT_CLIP = 5.0

# Lightning's hints that do not apply here.
_ADVICE = (
    r".*number of training batches .* is smaller than the logging interval.*",
    r".*GPU available but not used.*",
    r".*isinstance\(treespec, LeafSpec\).*",
)


class Unprofiled(PassThroughProfiler):
    """No profiler at all: Lightning's opens fifty contexts a step to measure nothing."""

    _nothing: AbstractContextManager[None] = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        return self._nothing


def trainer_options(asked: dict[str, Any], detector: Detector) -> dict[str, Any]:
    """Arguments of the Trainer: ours, with what was asked for on top.

    trainer.max_steps is a limit of its own: without it there are at most MAX_EPOCHS epochs.
    Raises BadInput for a precision that scales losses where the detector steps by itself.
    """
    options = {
        "accelerator": "auto",
        "devices": 1,
        "max_epochs": -1 if (asked.get("max_steps") or -1) > 0 else MAX_EPOCHS,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "profiler": Unprofiled(),
    } | asked
    options["enable_progress_bar"] = False  # ours is a callback
    if detector.automatic_optimization:
        return {"gradient_clip_val": GRADIENT_CLIP} | options
    if str(asked.get("precision")) in ("16", "16-mixed"):
        raise BadInput(
            f"trainer.precision {asked['precision']} scales losses, which {type(detector).__name__}"
            " cannot: it steps its optimizers by itself; take bf16-mixed or 32-true"
        )
    return options


@contextmanager
def lightnings_words() -> Iterator[None]:
    """Leaves out the advice that does not apply, and makes a wrong setting one line."""
    with warnings.catch_warnings():
        for message in _ADVICE:
            warnings.filterwarnings("ignore", message)
        try:
            yield
        except MisconfigurationException as error:
            raise BadInput(f"trainer: {' '.join(str(error).split())}") from error
