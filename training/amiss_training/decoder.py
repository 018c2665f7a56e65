"""The decoder as a file of its own: draws from the prior in, rows in the input's unit out."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from amiss_export.graph import ImageFeatures, TableFeatures
from amiss_export.to_onnx import write_onnx
from amiss_training.detectors import Detector
from amiss_training.detectors.networks import Autoencoder, frozen

INPUT = "z"


class Decoders(nn.Module):
    """Raw rows that each detector decodes from the same draws z (n, d), in the detectors' order.

    d is the widest latent space; a detector of fewer dimensions takes the leading ones, which are
    as independent and normal as all are.
    """

    def __init__(self, detectors: list[Detector], features: ImageFeatures | TableFeatures) -> None:
        super().__init__()
        self.networks = nn.ModuleList(frozen(detector.network) for detector in detectors)
        self.dims = [detector.latent_dim for detector in detectors]
        self.features = features
        self.eval().requires_grad_(False)

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        networks = (cast("Autoencoder", network) for network in self.networks)
        return tuple(
            self.features.restore(network.decode(z[:, :d]))
            for network, d in zip(networks, self.dims, strict=True)
        )


def write_decoder(
    detectors: Mapping[str, Detector],
    features: ImageFeatures | TableFeatures,
    path: Path,
) -> None:
    """Nothing; writes one ONNX graph, z (n, d) -> an output for each detector, by its name.

    features: what the detectors learned from; the outputs are in the unit of the raw input.
    """
    decoders = Decoders(list(detectors.values()), features)
    example = torch.zeros(2, max(decoders.dims))
    write_onnx(decoders, example, path, input_name=INPUT, output_names=list(detectors))
