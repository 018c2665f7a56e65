"""The models that are served, and the rows and images that they are asked about."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

NAME = "digits28"
SHAPE = (1, 28, 28)
TABLE, COLUMNS, TABLE_ROWS = "table121", 121, 4000
FACTORS = 12  # what the table's columns have in common
SEED = 0
Images = NDArray[np.uint8]
Rows = NDArray[np.float32]
Inputs = NDArray[Any]  # images or rows
Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Model:
    """A bundle in a models folder, and what bare ONNX Runtime makes of images or rows with it."""

    models: Path
    name: str = NAME

    @property
    def onnx(self) -> Path:
        return self.models / self.name / "1" / "model.onnx"

    @property
    def torchscript(self) -> Path:
        return self.models / self.name / "1" / "model.pt"

    def inputs(self, n: int, *, seed: int = SEED) -> Inputs:
        """images(n) for the digits, rows(n) for a table."""
        return images(n, seed=seed) if self.name == NAME else rows(n, seed=seed)

    def scores(self, x: Inputs) -> Scores:
        """(n,) float32, by a session of one thread: what every server must answer."""
        session = onnxruntime.InferenceSession(str(self.onnx), one_thread())
        (scores,) = session.run(["score"], {"x": x})
        return np.asarray(scores, dtype=np.float32)


def digits_model(cache: Path) -> Model:
    """A small convolutional VAE on scikit-learn's digits at 28x28, trained in a minute, once."""
    model = Model(cache / "models")
    options = ["--recipe", "digits", "--image-size", "28", "--vae.readout", "reconstruction"]
    _train(model, cache / "runs", options)
    return model


def table_model(cache: Path, *, readout: str = "auto") -> Model:
    """A VAE of 121 numbers a row, trained on rows() in half a minute, once for each read-out.

    It lies in a folder of its own: what serves the digits does not load it.
    """
    model = Model(cache / "tables", TABLE if readout == "auto" else f"{TABLE}-{readout}")
    file = model.models.with_suffix(".csv")
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        names = ",".join(f"c{number}" for number in range(COLUMNS))
        np.savetxt(file, rows(TABLE_ROWS), fmt="%.5f", delimiter=",", header=names, comments="")
    options = ["--recipe", "table", "--data", str(file), "--vae.readout", readout]
    _train(model, cache / "runs", options)
    return model


def images(n: int, *, seed: int = SEED) -> Images:
    """(n, 1, 28, 28) uint8 noise; what an image shows makes no difference to the work."""
    return np.random.default_rng(seed).integers(0, 256, (n, *SHAPE)).astype(np.uint8)


def rows(n: int, *, seed: int = SEED) -> Rows:
    """(n, 121) float32: normal, correlated through factors that are the same for every seed."""
    loadings = np.random.default_rng(SEED).normal(size=(FACTORS, COLUMNS))
    random = np.random.default_rng([SEED, seed])
    common = random.normal(size=(n, FACTORS)) @ loadings
    return (common + random.normal(size=(n, COLUMNS))).astype(np.float32)


def one_thread() -> onnxruntime.SessionOptions:
    """Session options with one compute thread, as every server here has them."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return options


def _train(model: Model, runs: Path, options: Sequence[str]) -> None:
    """The bundle of a VAE as version 1, unless it is there."""
    if (model.onnx.parent / "manifest.json").exists():
        return
    print(f"training {model.name} into {model.models} (once)", flush=True)
    command = [sys.executable, "-m", "amiss_cli.main", "train", "--detector", "vae", *options]
    command += ["--trainer.max_epochs", "2", "--name", model.name]
    command += ["--models", str(model.models), "--runs", str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"expected a bundle of {model.name}, got:\n{done.stderr[-2000:]}")
