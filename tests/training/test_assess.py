"""An exported graph is judged on the test rows, beside peers that saw the same normals."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from amiss_export.bundle import ImageInput
from amiss_export.decision import calibrate
from amiss_export.graph import ImageFeatures, ScoringGraph
from amiss_export.parity import onnx_scores
from amiss_export.to_onnx import write_onnx
from amiss_training.assess import Assessment, assess, peer_features
from amiss_training.data import Classes, Prepared, Roles
from amiss_training.evaluate import ranking_metrics

SIDE = 8


class Distance(nn.Module):
    """Squared distance from grey; the expectation is grey."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        expected = torch.full_like(x, 0.5)
        return (x - expected).flatten(1).square().sum(dim=1), expected


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph of Distance as an ONNX file."""
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    prepared = _prepared()
    normals = torch.from_numpy(prepared.x[prepared.roles.early_stop])
    write_onnx(ScoringGraph(ImageFeatures(), Distance(), normals), normals[:2], path)
    return path


def test_error_and_quality_are_those_of_the_exported_reconstruction(onnx: Path) -> None:
    """The class means are the pixels' squared distances from grey, PSNR theirs of the normals."""
    prepared, found = _prepared(), _assess(onnx)
    test = prepared.roles.test
    error = np.square(prepared.x[test] / 255 - 0.5).mean(axis=(1, 2, 3))
    truth = prepared.is_anomaly[test]
    for name, of_kind in (("dark", ~truth), ("bright", truth)):
        mean = found.metrics["per_class"][name]["mean_reconstruction_error"]
        assert mean == pytest.approx(error[of_kind].mean(), rel=1e-4)
    psnr = (-10 * np.log10(error[~truth])).mean()
    assert found.metrics["reconstruction"]["psnr"] == pytest.approx(psnr, rel=1e-4)


def test_untrained_scores_stand_among_the_peers(onnx: Path) -> None:
    """They come with the AUROC of the scores handed in, and without them the row is absent."""
    truth = _prepared().is_anomaly[_prepared().roles.test]
    scores = np.random.default_rng(0).random(len(truth))
    found = _assess(onnx, untrained=scores)
    assert found.peers["untrained"]["auroc"] == ranking_metrics(scores, truth)["auroc"]
    assert "untrained" not in _assess(onnx).peers


def test_the_oracle_share_reaches_the_metrics(onnx: Path) -> None:
    """A share that is asked for is reported as an oracle, beside the stored threshold's figures."""
    top = _assess(onnx, oracle_flag_share=0.5).metrics["oracle_top_share"]
    assert top["flagged"] == 30
    assert _assess(onnx).metrics["oracle_top_share"] is None


def test_peers_of_images_see_images() -> None:
    """Their features are pixels 0..1 in the images' shape, for the correction of complexity."""
    prepared = _prepared()
    features = peer_features(prepared.input, prepared.x, train=prepared.roles.train)
    assert features.shape == prepared.x.shape
    np.testing.assert_allclose(features, prepared.x / 255, atol=1e-6)


def _assess(onnx: Path, **options: object) -> Assessment:
    prepared = _prepared()
    decision, calibration = calibrate(onnx_scores(onnx, prepared.x[prepared.roles.calibration]))
    return assess(
        onnx,
        decision=decision,
        calibration=calibration,
        prepared=prepared,
        seed=0,
        **options,  # type: ignore[arg-type]  # each test names the option it is about
    )


def _prepared() -> Prepared:
    """90 dark images, 30 of them for the test beside 30 bright ones."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 120, (120, 1, SIDE, SIDE), dtype=np.uint8)
    x[90:] += 100
    rows = np.arange(120)
    truth = rows >= 90
    return Prepared(
        input=ImageInput(channels=1, height=SIDE, width=SIDE),
        x=x,
        label=np.where(truth, "bright", "dark"),
        classes=Classes("dark", None),
        is_anomaly=truth,
        roles=Roles(
            train=rows[:30], early_stop=rows[30:40], calibration=rows[40:60], test=rows[60:]
        ),
        names=[str(row) for row in rows],
        data_hash="",
        split_hash={},
        split_rows={},
        duplicate_rows_removed=0,
        notes=[],
    )
