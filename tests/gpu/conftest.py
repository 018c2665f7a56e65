"""Two detectors as they are served: one that convolves, one of a table, each in both formats."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from amiss_export.bundle import ImageInput
from amiss_export.parity import onnx_scores
from amiss_export.to_onnx import write_onnx
from amiss_serving.onnx_runtime import choose_device
from bench.serving.models import COLUMNS, NAME, SHAPE, Images, Model, images
from bundle_factory import write_bundle
from torchscript_bundles import table_with_torchscript, with_torchscript

TABLE = "table"
HAS_CUDA = choose_device("auto").name != "cpu"
needs_cuda = pytest.mark.skipif(not HAS_CUDA, reason="needs a CUDA device")


class Convolving(nn.Module):
    """uint8 x (n, 1, 28, 28) -> score (n,), reconstruction: an untrained autoencoder."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.encode = nn.Sequential(
                nn.Conv2d(1, 16, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2d(16, 32, 3, stride=2, padding=1),
                nn.ReLU(),
            )
            self.decode = nn.Sequential(
                nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1),
                nn.ReLU(),
                nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1),
            )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pixels = x.to(torch.float32) / 255
        restored = torch.sigmoid(self.decode(self.encode(pixels)))
        error = (pixels - restored).square().double().mean(dim=(1, 2, 3))
        return error.to(torch.float32), restored * 255


@pytest.fixture(scope="session")
def served_models() -> Iterator[tuple[Model, Model]]:
    """The convolving one and the table, newest versions, in one folder."""
    with tempfile.TemporaryDirectory(prefix="amiss-gpu-") as folder:
        models = Path(folder)
        _write_convolving(models)
        table_with_torchscript(models, d=COLUMNS)
        yield Model(models), Model(models, TABLE)


def of_all_contrasts(x: Images) -> Images:
    """The images (n, ...), the first all but black and the last as it was: scores far apart."""
    contrast = np.linspace(1 / len(x), 1, len(x), dtype=np.float32)
    return (x * contrast[:, None, None, None]).astype(np.uint8)


def _write_convolving(models: Path) -> None:
    graph, example = Convolving().eval(), torch.zeros(2, *SHAPE, dtype=torch.uint8)
    path = models / "model.onnx"
    write_onnx(graph, example, path)
    channels, height, width = SHAPE
    version = write_bundle(
        models,
        NAME,
        onnx.load(path),
        ImageInput.model_validate({"channels": channels, "height": height, "width": width}),
        calibration=onnx_scores(path, of_all_contrasts(images(200, seed=1))),
        threshold_rate=0.05,
    )
    path.unlink()
    with_torchscript(models, NAME, version, graph, example)
