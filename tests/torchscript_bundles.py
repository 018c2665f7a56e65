"""The hand-made bundles of bundle_factory once more, with a model.pt that computes the same."""

from pathlib import Path

import torch
from torch import Tensor, nn

from amiss_export.bundle import TORCHSCRIPT, read_bundle
from amiss_export.publish import publish, writing_bundle
from amiss_export.to_torchscript import write_torchscript
from bundle_factory import GREY, write_image_bundle, write_table_bundle


def table_with_torchscript(models: Path, *, d: int = 3) -> int:
    """Newest version of 'table', in both formats."""
    version = write_table_bundle(models, d=d)
    return with_torchscript(models, "table", version, _Table(d), torch.zeros(2, d))


def images_with_torchscript(models: Path) -> int:
    """Newest version of 'image', 8x8 grey pictures, in both formats."""
    version = write_image_bundle(models)
    example = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    return with_torchscript(models, "image", version, _Image(), example)


def write_table_script(path: Path, *, d: int = 3) -> bytes:
    """The table's model.pt, also written to path."""
    write_torchscript(_Table(d), torch.zeros(2, d), path)
    return path.read_bytes()


class _Table(nn.Module):
    mean: Tensor

    def __init__(self, d: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.arange(d, dtype=torch.float32))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        filled = torch.where(torch.isnan(x), self.mean, x)
        scaled = (filled - self.mean) / (self.mean + 1)
        return scaled.square().mean(dim=1), self.mean.expand_as(x)


class _Image(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        centred = x.to(torch.float32) / 255 - 0.5
        return centred.square().mean(dim=(1, 2, 3)), torch.full_like(centred, GREY)


def with_torchscript(
    models: Path, name: str, version: int, graph: nn.Module, example: Tensor
) -> int:
    bundle = read_bundle(models, name, version)
    with writing_bundle(models, name) as folder:
        for file in bundle.manifest.files:
            (folder / file).write_bytes(bundle.read(file))
        write_torchscript(graph, example, folder / TORCHSCRIPT)
        return publish(folder, bundle.manifest)
