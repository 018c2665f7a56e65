"""What a trained detector has made of its latent space, and what else its score could have been."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor, nn

from amiss_export.errors import AmissError
from amiss_export.graph import ImageFeatures, TableFeatures
from amiss_training.data import Prepared
from amiss_training.detectors.module import Detector
from amiss_training.evaluate import ranking_metrics
from amiss_training.evaluate_images import pixel_auroc, reconstruction_quality
from amiss_training.pixel_maps import PixelMaps
from amiss_training.rows import spread

MAX_CODES = 2_000
MAX_READOUT_ROWS = 5_000
MAX_QUALITY_ROWS = 1_000
MAX_MASKED_IMAGES = 500
SAMPLES = 16
BATCH_ROWS = 1_024

Rows = NDArray[np.int64]
Features = ImageFeatures | TableFeatures


@dataclass(frozen=True)
class Inspection:
    """One detector looked into; a figure that its data cannot support is None.

    codes: (p, 2) of test rows number code_rows (p,) among the test rows, the two leading principal
    components where there are more than 2 latent dimensions; codes_variance: the share of the
    codes' variance that they hold. samples: (16, ...) decoded from the prior, in the input's unit.
    quality: of reconstructions of test normals, see `reconstruction_quality`. readouts: by name
    {"auroc", "auprc", "note"} on at most 5,000 test rows, `readout` the one in use.
    pixel_maps: raw images (k, c, h, w) -> (k, h, w).
    """

    latent_dim: int
    active_units: int
    codes: NDArray[np.float32]
    code_rows: Rows
    codes_variance: float
    samples: NDArray[Any]
    quality: dict[str, float] | None
    readout: str
    readouts: dict[str, dict[str, Any]]
    pixel_maps: Callable[[NDArray[Any]], NDArray[np.float32]] | None
    pixel_auroc: float | None

    def as_json(self) -> dict[str, Any]:
        """The figures as plain values; codes, samples and maps are pictures and not among them."""
        names = ("latent_dim", "active_units", "codes_variance", "quality", "readout", "readouts")
        return {name: getattr(self, name) for name in (*names, "pixel_auroc")}


def inspect(
    detector: Detector,
    features: Features,
    prepared: Prepared,
    *,
    train: Tensor,
    early_stop: Tensor,
    seed: int,
) -> Inspection:
    """What the detector does beyond its score. Leaves it in eval mode; deterministic in seed.

    train, early_stop: features of those rows, on which read-outs are fitted.
    """
    detector.eval()
    test, generator = prepared.roles.test, np.random.default_rng(seed)
    code_rows = _half_anomalies(prepared.is_anomaly[test], generator)
    codes, variance = _plane(_codes(detector, features, prepared.x[test[code_rows]]))
    maps = None
    if isinstance(features, ImageFeatures):
        normals = prepared.x[prepared.roles.early_stop]
        maps = PixelMaps(detector.fit_readout(train, early_stop), normals)
    return Inspection(
        latent_dim=detector.latent_dim,
        active_units=detector.active_units(early_stop),
        codes=codes,
        code_rows=code_rows,
        codes_variance=variance,
        samples=_samples(detector, features, seed=seed),
        quality=_quality(detector, features, prepared),
        readout=detector.readout,
        readouts=_readouts(detector, features, prepared, train, early_stop, generator=generator),
        pixel_maps=maps,
        pixel_auroc=_pixel_auroc(maps, prepared),
    )


def readout_values(readout: nn.Module, features: Features, x: NDArray[Any]) -> NDArray[np.float64]:
    """The read-out's values (n,) of raw rows, by torch: of a network that is not exported."""
    with torch.inference_mode():
        parts = [
            readout(_features(features, x[i : i + BATCH_ROWS]))[0]
            for i in range(0, len(x), BATCH_ROWS)
        ]
    return np.asarray(torch.cat(parts).double().numpy())


def _features(features: Features, x: NDArray[Any]) -> Tensor:
    """In float32: the exported graph keeps a table's in double, the network does not."""
    with torch.no_grad():
        rows: Tensor = features(torch.from_numpy(x))
    return rows.float()


def _half_anomalies(is_anomaly: NDArray[np.bool_], generator: np.random.Generator) -> Rows:
    """At most 2,000 row numbers in random order, half of each kind where there are enough."""
    kinds = [generator.permutation(np.flatnonzero(is_anomaly == kind)) for kind in (False, True)]
    fewer = min(MAX_CODES // 2, *(len(rows) for rows in kinds))
    chosen = [rows[: max(MAX_CODES // 2, MAX_CODES - fewer)] for rows in kinds]
    return generator.permutation(np.concatenate(chosen))


def _codes(detector: Detector, features: Features, x: NDArray[Any]) -> NDArray[np.float32]:
    parts = [
        detector.encode(_features(features, x[i : i + BATCH_ROWS]))
        for i in range(0, len(x), BATCH_ROWS)
    ]
    return torch.cat(parts).numpy()


def _plane(codes: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """The codes in two dimensions (p, 2), and the share of their variance that this shows."""
    p, d = codes.shape
    if d <= 2:
        return np.pad(codes, ((0, 0), (0, 2 - d))), 1.0
    if p < 2 or not codes.var(axis=0).any():
        return codes[:, :2], 1.0
    pca = PCA(n_components=2)
    plane = pca.fit_transform(codes.astype(np.float64)).astype(np.float32)
    return plane, float(pca.explained_variance_ratio_.sum())


def _samples(detector: Detector, features: Features, *, seed: int) -> NDArray[Any]:
    generator = torch.Generator().manual_seed(seed)
    drawn = detector.sample(torch.randn(SAMPLES, detector.latent_dim, generator=generator))
    with torch.no_grad():
        return features.restore(drawn).numpy()


def _quality(detector: Detector, features: Features, prepared: Prepared) -> dict[str, float] | None:
    test = prepared.roles.test
    normals = spread(test[~prepared.is_anomaly[test]], MAX_QUALITY_ROWS)
    if not isinstance(features, ImageFeatures) or not len(normals):
        return None
    images = _features(features, prepared.x[normals])
    parts = [detector.reconstruct(part) for part in torch.split(images, BATCH_ROWS)]
    return reconstruction_quality(images.numpy(), torch.cat(parts).clamp(0.0, 1.0).numpy())


def _readouts(
    detector: Detector,
    features: Features,
    prepared: Prepared,
    train: Tensor,
    early_stop: Tensor,
    *,
    generator: np.random.Generator,
) -> dict[str, dict[str, Any]]:
    """Each read-out's figures on the same test rows: reported, never used to choose."""
    test = prepared.roles.test
    rows = generator.permutation(test)[:MAX_READOUT_ROWS]
    x, truth = prepared.x[rows], prepared.is_anomaly[rows]
    table: dict[str, dict[str, Any]] = {}
    for name in detector.readout_names:
        try:
            fitted = detector.fit_readout(train, early_stop, name=name)
            metrics = ranking_metrics(readout_values(fitted, features, x), truth)
        except (AmissError, ValueError) as error:  # one that these data do not bear
            table[name] = {"auroc": None, "auprc": None, "note": str(error)}
            continue
        table[name] = {"auroc": metrics["auroc"], "auprc": metrics["auprc"], "note": ""}
    return table


def _pixel_auroc(maps: PixelMaps | None, prepared: Prepared) -> float | None:
    """Over at most 500 test images, left out those whose defect nobody has outlined."""
    if maps is None or prepared.masks is None:
        return None
    test = prepared.roles.test
    masks = prepared.masks[test]
    outlined = masks.any(axis=(1, 2)) | ~prepared.is_anomaly[test]
    rows = test[outlined][:: max(1, -(-int(outlined.sum()) // MAX_MASKED_IMAGES))]
    if not len(rows):
        return None
    return pixel_auroc(maps(prepared.x[rows]), prepared.masks[rows])
