"""torch.compile around the networks of a detector while it learns, and eager ones afterwards."""

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from amiss_export.errors import BadInput
from amiss_training.detectors.module import Detector
from amiss_training.detectors.networks import Encoder

COMPILERS = ("g++", "clang++", "c++", "cl")


@contextmanager
def compiled(detector: Detector, *, enabled: bool = True) -> Iterator[None]:
    """Encoders and decoders run compiled inside the block; the detector is as before after it.

    Critics stay eager: the gradient penalty differentiates twice, which compiled graphs cannot.
    Raises BadInput where no C++ compiler is found, and for what torch.compile cannot compile.
    """
    if not enabled:
        yield
        return
    check_compiler()
    encoders = [m for m in detector.network.modules() if isinstance(m, Encoder)]
    decoders = [m for m in detector.network.children() if isinstance(m, nn.Sequential)]
    try:
        with warnings.catch_warnings():
            # Of torch about itself, and of modules whose every name its pickler looks at.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.filterwarnings("ignore", r".*grad attribute of a Tensor that is not a leaf")
            for encoder in encoders:
                encoder.path = torch.compile(encoder.path)  # type: ignore[method-assign]
            for decoder in decoders:
                decoder.compile()
            yield
    except TorchDynamoException as error:
        raise BadInput(
            f"torch.compile failed: {str(error).splitlines()[0]}; train without --fit.compile"
        ) from error
    finally:
        for encoder in encoders:
            vars(encoder).pop("path", None)
        for decoder in decoders:
            decoder._compiled_call_impl = None


def check_compiler() -> None:
    """Nothing; raises BadInput where torch.compile would find no C++ compiler."""
    asked: Any = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ([asked] if asked else COMPILERS)):
        raise BadInput(
            f"fit.compile needs a C++ compiler, looked for {asked or ', '.join(COMPILERS)}; "
            "install one (Debian: apt-get install g++) or train without --fit.compile"
        )
