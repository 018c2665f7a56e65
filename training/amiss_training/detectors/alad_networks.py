"""ALAD's networks: E, G and the three discriminators (Zenati et al. 2018, section 4 and appendix).

Without batch norm: what E and D_xx make of a gap between two inputs can then be followed from layer
to layer, and spectral norm keeps the discriminators within bounds.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from amiss_training.detectors.networks import Autoencoder, Encoder, decoder, leaky


class PairDiscriminator(nn.Module):
    """Logits (n,) that two things shaped alike are the same: D_xx of features, D_zz of codes.

    Images are put one upon the other as channels: pixels that should agree meet in one filter.
    """

    def __init__(
        self, shape: Sequence[int], widths: Sequence[int], *, dropout: float, normed: bool
    ) -> None:
        super().__init__()
        self.body = Encoder((2 * shape[0], *shape[1:]), widths)
        self.logit = nn.Linear(widths[-1], 1)
        self.dropout = nn.Dropout(dropout)
        if normed:
            hold_gain(self.body.layers)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        logits: Tensor = self.logit(self.features(x, other))
        return logits.squeeze(1)

    def features(self, x: Tensor, other: Tensor) -> Tensor:
        """The last hidden layer f(x, other), (n, widths[-1])."""
        hidden = torch.cat([x, other], dim=1)
        for layer in self.body.layers:
            if isinstance(layer, nn.Linear):
                hidden = self.dropout(leaky(layer(hidden.flatten(1))))
            else:
                hidden = leaky(layer(hidden))  # dropping pixels costs an eighth of a step's time
        return hidden

    def feature_gap(self, x: Tensor, other: Tensor) -> Tensor:
        """f(x, x) - f(x, other) without dropout, (n, widths[-1]), exact for the smallest gaps."""
        path = self.body.path(torch.cat([x, x], dim=1))
        return self.body.path_gaps(path, torch.cat([torch.zeros_like(x), x - other], dim=1))[-1]


class JointDiscriminator(nn.Module):
    """D_xz: logits (n,) that features and a code belong together as x and E(x)."""

    def __init__(
        self,
        shape: Sequence[int],
        widths: Sequence[int],
        latent_dim: int,
        *,
        dropout: float,
        normed: bool,
    ) -> None:
        super().__init__()
        width = widths[-1]
        self.of_x = Encoder(shape, widths)
        self.of_z = nn.Linear(latent_dim, width)
        self.joint = nn.Linear(2 * width, width)
        self.logit = nn.Linear(width, 1)
        self.dropout = nn.Dropout(dropout)
        if normed:
            hold_gain([*self.of_x.layers, self.of_z, self.joint])

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        both = torch.cat([self.of_x(x), self.dropout(leaky(self.of_z(z)))], dim=1)
        logits: Tensor = self.logit(self.dropout(leaky(self.joint(both))))
        return logits.squeeze(1)


class AladNetwork(Autoencoder):
    """All that is scored: E, G and D_xx over features (f,) or images (c, h, w)."""

    def __init__(
        self,
        shape: Sequence[int],
        *,
        widths: Sequence[int],
        discriminator_widths: Sequence[int],
        latent_dim: int,
        dropout: float,
        normed: bool,
    ) -> None:
        super().__init__()
        self.is_image = len(shape) > 1
        self.encoder = Encoder(shape, widths)
        self.head = nn.Linear(widths[-1], latent_dim)
        self.generator = decoder(shape, widths, latent_dim)
        self.d_xx = PairDiscriminator(shape, discriminator_widths, dropout=dropout, normed=normed)
        if normed:
            hold_gain(self.encoder.layers)

    def code(self, last: Tensor) -> Tensor:
        code: Tensor = self.head(leaky(last))
        return code

    def decode(self, z: Tensor) -> Tensor:
        output: Tensor = self.generator(z)
        return torch.sigmoid(output) if self.is_image else output

    def maker_parameters(self) -> list[nn.Parameter]:
        """Those of E and G."""
        parts = (self.encoder, self.head, self.generator)
        return [parameter for part in parts for parameter in part.parameters()]


def hold_gain(layers: Iterable[nn.Module]) -> None:
    """Nothing; divides the layers' weights by their largest singular value (Miyato et al. 2018)."""
    for layer in layers:
        spectral_norm(layer)
