"""Training on a CUDA device: what it learns there is scored on any machine."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from amiss_export.errors import BadInput
from amiss_training.config import TrainConfig
from amiss_training.data import DataOptions, Prepared, prepare
from amiss_training.detectors import DETECTORS
from amiss_training.fit import FitConfig
from amiss_training.learn import Learned, learn

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module")
def digits() -> Prepared:
    return prepare(None, DataOptions(loader="digits", normal_class="0"), seed=0)


def trained(detector: str, prepared: Prepared, run_dir: Path, **trainer: Any) -> Learned:
    config = TrainConfig(
        name="cuda",
        detector=detector,
        fit=FitConfig(batch_size=32, min_steps_per_epoch=20, ema_decay=0.9),
        trainer={"max_epochs": 3, "enable_progress_bar": False, "accelerator": "gpu", **trainer},
    )
    return learn(config, prepared, run_dir=run_dir)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("detector", sorted(DETECTORS))
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("kind", ["digits", "line_table"])
def test_what_was_learned_on_the_device_is_scored_on_the_cpu(
    detector: str, precision: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """The graph lies on the CPU, its scores are finite, and anomalies lie above normals."""
    prepared: Prepared = request.getfixturevalue(kind)
    learned = trained(detector, prepared, tmp_path, precision=precision)
    test = prepared.roles.test
    with torch.no_grad():
        score = learned.graph(torch.from_numpy(prepared.x[test]))[0].numpy()
    is_anomaly = prepared.is_anomaly[test]
    assert np.isfinite(score).all()
    assert np.median(score[is_anomaly]) > np.quantile(score[~is_anomaly], 0.8)


@pytest.mark.gpu
@needs_cuda
def test_half_precision_learns_with_scaled_losses(digits: Prepared, tmp_path: Path) -> None:
    """The VAE's losses fall under 16-mixed too; the adversarial ones refuse it by name."""
    history = trained("vae", digits, tmp_path, precision="16-mixed").members[0].fitted.history
    assert history[-1]["val_loss"] < history[0]["val_loss"]
    with pytest.raises(BadInput, match="bf16-mixed"):
        trained("alad", digits, tmp_path / "alad", precision="16-mixed")
