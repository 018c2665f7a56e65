"""The one model that every server runs, and the images that it is asked about."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

NAME = "digits28"
SHAPE = (1, 28, 28)
SEED = 0
Images = NDArray[np.uint8]
Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Model:
    """A bundle in a models folder, and what bare ONNX Runtime makes of images with it."""

    models: Path

    @property
    def onnx(self) -> Path:
        return self.models / NAME / "1" / "model.onnx"

    def scores(self, images: Images) -> Scores:
        """(n,) float32, by a session of one thread: what every server must answer."""
        session = onnxruntime.InferenceSession(str(self.onnx), one_thread())
        (scores,) = session.run(["score"], {"x": images})
        return np.asarray(scores, dtype=np.float32)


def digits_model(cache: Path) -> Model:
    """A small convolutional VAE on scikit-learn's digits at 28x28, trained in a minute, once."""
    models = cache / "models"
    if not (models / NAME / "1" / "manifest.json").exists():
        print(f"training {NAME} into {models} (once)", flush=True)
        options = ["--recipe", "digits", "--detector", "vae", "--image-size", "28"]
        options += ["--vae.readout", "reconstruction", "--trainer.max_epochs", "2"]
        options += ["--name", NAME, "--models", str(models), "--runs", str(cache / "runs")]
        command = [sys.executable, "-m", "amiss_cli.main", "train", *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return Model(models)


def images(n: int, *, seed: int = SEED) -> Images:
    """(n, 1, 28, 28) uint8 noise; what an image shows makes no difference to the work."""
    return np.random.default_rng(seed).integers(0, 256, (n, *SHAPE)).astype(np.uint8)


def one_thread() -> onnxruntime.SessionOptions:
    """Session options with one compute thread, as every server here has them."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return options
