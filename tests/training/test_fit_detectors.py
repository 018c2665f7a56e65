"""What the training loop promises of every detector."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from amiss_export.errors import BadInput
from amiss_export.parity import onnx_scores
from amiss_export.to_onnx import write_onnx
from amiss_export.to_torchscript import load_torchscript, write_torchscript
from amiss_training.compiling import COMPILERS
from amiss_training.detectors.aae import Aae, AaeConfig
from amiss_training.detectors.alad import Alad, AladConfig
from amiss_training.detectors.module import Detector
from amiss_training.detectors.vae import Vae, VaeConfig
from amiss_training.fit import FitConfig, Fitted, fit

SMALL: dict[str, Any] = {
    "vae": lambda: Vae(VaeConfig(hidden=(16, 8), latent_dim=2), shape=(6,), columns=6),
    "aae": lambda: Aae(AaeConfig(hidden=(16, 8), latent_dim=2), shape=(6,), columns=6),
    "alad": lambda: Alad(AladConfig(hidden=(16, 8), latent_dim=2), shape=(6,), columns=6),
}
every_detector = pytest.mark.parametrize("name", SMALL)


def normals(n: int, *, seed: int) -> Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)).cumsum(dim=1) / 2


def small(name: str, *, seed: int = 0) -> Detector:
    torch.manual_seed(seed)
    detector: Detector = SMALL[name]()
    return detector


def fit_small(
    detector: Detector, folder: Path, *, compile: bool = False, resume: bool = False, **trainer: Any
) -> Fitted:
    return fit(
        detector,
        train=normals(200, seed=1),
        early_stop=normals(50, seed=2),
        config=FitConfig(batch_size=50, min_steps_per_epoch=4, log="none", compile=compile),
        trainer={"accelerator": "cpu", "enable_progress_bar": False} | trainer,
        run_dir=folder,
        fingerprint="same",
        seed=0,
        resume=resume,
    )


def equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, two[key]) for key, value in one.items())


@every_detector
def test_the_same_seed_gives_the_same_weights(name: str, tmp_path: Path) -> None:
    """Two runs agree to the bit in every tensor; one with other initial weights does not."""
    states = []
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        detector = small(name, seed=seed)
        fit_small(detector, tmp_path / folder, max_epochs=2)
        states.append(detector.state_dict())
    assert equal(states[0], states[1])
    assert not equal(states[0], states[2])


@every_detector
def test_a_resumed_run_ends_as_if_it_had_not_stopped(name: str, tmp_path: Path) -> None:
    """Broken off in its third epoch and resumed, weights and history are equal to the bit."""
    whole = small(name)
    expected = fit_small(whole, tmp_path / "whole", max_epochs=4)
    with pytest.raises(RuntimeError, match="power cut"):
        fit_small(without_power(small(name), epoch=2), tmp_path / "broken", max_epochs=4)
    broken = small(name, seed=1)  # the checkpoint has the weights
    found = fit_small(broken, tmp_path / "broken", max_epochs=4, resume=True)
    assert found.resumed
    assert found.history == expected.history
    assert equal(whole.state_dict(), broken.state_dict())


def without_power(detector: Detector, *, epoch: int) -> Detector:
    """The detector, which breaks at the start of that epoch."""

    def power_cut() -> None:
        if detector.current_epoch == epoch:
            raise RuntimeError("power cut")

    detector.on_train_epoch_start = power_cut  # type: ignore[method-assign]
    return detector


@every_detector
@pytest.mark.parametrize(("max_steps", "epochs"), [(3, 1), (8, 2), (10, 3)])
def test_max_steps_is_the_number_of_batches(
    name: str, max_steps: int, epochs: int, tmp_path: Path
) -> None:
    """So many batches are trained on, and the epoch they end in is validated, full or not."""
    detector = small(name)
    seen: list[int] = []
    detector.on_train_batch_end = lambda *_: seen.append(detector.global_step)  # type: ignore[method-assign]
    fitted = fit_small(detector, tmp_path, max_steps=max_steps)
    assert seen == list(range(1, max_steps + 1))
    assert len(fitted.history) == epochs
    assert len({row["val_loss"] for row in fitted.history}) == epochs


@every_detector
def test_every_epoch_has_losses_of_both_stages(name: str, tmp_path: Path) -> None:
    """Each row of the history has the epoch, training terms and val_loss, all of them finite."""
    for row in fit_small(small(name), tmp_path, max_epochs=2).history:
        assert {"epoch", "val_loss"} < set(row)
        assert any(term.startswith("train_") for term in row)
        assert all(math.isfinite(value) for value in row.values())


@every_detector
@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_any_precision_leaves_a_detector_in_single(
    name: str, precision: str, tmp_path: Path
) -> None:
    """After training in less or more than 32 bits weights are float32; both exports agree."""
    detector = small(name)
    fitted = fit_small(detector, tmp_path, max_epochs=2, precision=precision)
    assert math.isfinite(fitted.history[-1]["val_loss"])
    assert all(p.dtype == torch.float32 for p in detector.parameters())
    check_export(detector, tmp_path)


@pytest.mark.parametrize("name", ["vae", "aae"])
def test_a_run_without_an_end_is_refused(name: str, tmp_path: Path) -> None:
    """A learning rate cannot decay over endless epochs: one line names the two limits."""
    with pytest.raises(BadInput, match=r"max_epochs and trainer\.max_steps set no end") as raised:
        fit_small(small(name), tmp_path, max_epochs=-1)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
@every_detector
def test_a_compiled_run_leaves_an_eager_detector(name: str, tmp_path: Path) -> None:
    """After training through torch.compile both exports agree."""
    if not any(shutil.which(compiler) for compiler in COMPILERS):
        pytest.skip("torch.compile needs a C++ compiler, found none")
    detector = small(name)
    fitted = fit_small(detector, tmp_path, max_epochs=2, compile=True)
    assert math.isfinite(fitted.history[-1]["val_loss"])
    check_export(detector, tmp_path)


def check_export(detector: Detector, folder: Path) -> None:
    """Exported to both formats, the read-out gives the same finite values."""
    train, early_stop, x = (normals(n, seed=n) for n in (200, 50, 64))
    readout = detector.fit_readout(train, early_stop).eval()
    write_onnx(readout, x[:2], folder / "model.onnx")
    write_torchscript(readout, x[:2], folder / "model.pt")
    onnx = onnx_scores(folder / "model.onnx", x.numpy())
    torchscript = load_torchscript(folder / "model.pt")(x)[0].numpy()
    assert np.isfinite(onnx).all()
    np.testing.assert_allclose(onnx, torchscript, rtol=1e-3)


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ({"precision": "16-mixed"}, r"16-mixed scales losses, which Alad cannot.*bf16-mixed"),
        ({"gradient_clip_val": 1.0}, r"^trainer: .*gradient clipping"),
    ],
)
def test_what_a_detector_that_steps_by_itself_cannot_do_is_refused(
    trainer: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Scaled losses and Lightning's clipping are refused in one line before the first step."""
    with pytest.raises(BadInput, match=message) as raised:
        fit_small(small("alad"), tmp_path, max_epochs=1, **trainer)
    assert "\n" not in str(raised.value)
