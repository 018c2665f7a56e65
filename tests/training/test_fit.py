"""The training loop: seeds, averaged weights, the best epoch, and going on after a crash."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from amiss_export.errors import BadInput
from amiss_training.detectors.vae import Vae, VaeConfig
from amiss_training.fit import LAST, FitConfig, Fitted, fit, forget

TRAINER_SETTINGS = ("max_epochs", "max_steps", "devices", "limit_val_batches", "val_check_interval")


def normals(n: int, *, seed: int) -> Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)).cumsum(dim=1) / 2


def run(
    folder: Path, *, epochs: int = 3, seed: int = 0, config: FitConfig | None = None, **more: Any
) -> tuple[Vae, Fitted]:
    torch.manual_seed(seed)
    rate = more.pop("learning_rate", 1e-3)
    settings = {"max_epochs": epochs, "enable_progress_bar": False, "accelerator": "cpu"}
    asked = {name: more.pop(name) for name in TRAINER_SETTINGS if name in more}
    vae = Vae(VaeConfig(hidden=(16,), latent_dim=2, learning_rate=rate), shape=(6,), columns=6)
    fitted = fit(
        vae,
        train=normals(200, seed=1),
        early_stop=normals(50, seed=2),
        config=config or FitConfig(batch_size=50, min_steps_per_epoch=4, log="none"),
        trainer=settings | asked,
        run_dir=folder,
        fingerprint=more.pop("fingerprint", "same"),
        seed=seed,
        **more,
    )
    return vae, fitted


ALONE = """
import sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])
from test_fit import run
torch.set_num_threads(1)
torch.save(run(Path(sys.argv[2]))[0].state_dict(), sys.argv[3])
"""


@pytest.mark.slow
def test_another_process_gives_the_same_weights(tmp_path: Path) -> None:
    """Trained in a process of its own, every tensor is equal to the bit."""
    found = tmp_path / "state.pt"
    here = Path(__file__).parent
    command = [sys.executable, "-c", ALONE, str(here), str(tmp_path / "theirs"), str(found)]
    subprocess.run(command, check=True, timeout=250)
    ours = run(tmp_path / "ours")[0].state_dict()
    theirs = torch.load(found, weights_only=True)
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


TWO = """
import os
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_fit import run
_, fitted = run(Path(sys.argv[2]), epochs=2, devices=2)
line = f"RESULT {fitted.is_main} {len(fitted.history)} {fitted.best_epoch}\\n"
os.write(1, line.encode())  # in one piece: the other process writes, too
"""


@pytest.mark.slow
def test_two_processes_train_one_detector(tmp_path: Path) -> None:
    """With devices=2 on a CPU both processes finish; only one of them has the best epoch."""
    script = tmp_path / "two.py"
    script.write_text(TWO)
    command = [sys.executable, str(script), str(Path(__file__).parent), str(tmp_path / "run")]
    done = subprocess.run(command, check=True, timeout=250, capture_output=True, text=True)
    lines = sorted(re.findall(r"RESULT (\w+) (\d+) (-?\d+)", done.stdout))
    assert [line[:2] for line in lines] == [("False", "2"), ("True", "2")]
    assert lines[0][2] == "-1"
    assert int(lines[1][2]) >= 0


def test_history_has_every_term_of_every_epoch(tmp_path: Path) -> None:
    """Each epoch has training and validation loss, reconstruction and KL, and the loss falls."""
    _, fitted = run(tmp_path, epochs=6)
    terms = {f"{stage}_{t}" for stage in ("train", "val") for t in ("loss", "reconstruction", "kl")}
    assert [row["epoch"] for row in fitted.history] == list(range(6))
    assert all(terms < set(row) for row in fitted.history)
    assert fitted.history[-1]["val_loss"] < fitted.history[0]["val_loss"]


def test_the_kept_weights_are_the_averaged_ones_of_the_best_epoch(tmp_path: Path) -> None:
    """The validation loss of the returned weights is the smallest in the history."""
    vae, fitted = run(tmp_path, epochs=5)
    x = normals(50, seed=2)
    with torch.no_grad():
        mean, log_variance = vae.network.posterior(x)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)
        loss = vae.network.negative_log_likelihood(x, vae.network.decode(mean)) + kl
    best = min(fitted.history, key=lambda row: row["val_loss"])
    assert fitted.best_epoch == best["epoch"]
    assert float(loss.mean()) == pytest.approx(best["val_loss"], rel=1e-5)


def test_training_stops_when_normals_no_longer_improve(tmp_path: Path) -> None:
    """With weights that cannot move and patience 2, training ends after the third epoch."""
    patient = FitConfig(batch_size=50, min_steps_per_epoch=4, patience=2)
    _, fitted = run(tmp_path, epochs=50, config=patient, learning_rate=0.0)
    assert len(fitted.history) == 3


def test_a_run_cut_off_while_it_improves_says_by_what(tmp_path: Path) -> None:
    """The limit is named with its value; a run that patience ended names none."""
    impatient = FitConfig(batch_size=50, min_steps_per_epoch=4, patience=1, log="none")
    assert run(tmp_path / "a", epochs=3)[1].limit == "trainer.max_epochs 3"
    assert run(tmp_path / "b", epochs=9, max_steps=8)[1].limit == "trainer.max_steps 8"
    assert run(tmp_path / "c", epochs=50, config=impatient, learning_rate=0.1)[1].limit == ""


def test_an_interrupted_run_is_continued(tmp_path: Path) -> None:
    """Two epochs, then --resume to five: five epochs of history, the first two unchanged."""
    _, first = run(tmp_path, epochs=2)
    _, second = run(tmp_path, epochs=5, resume=True)
    assert second.resumed
    assert [row["epoch"] for row in second.history] == [0, 1, 2, 3, 4]
    assert second.history[:2] == first.history


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    """Resuming with other settings or data names the file and says what to do."""
    run(tmp_path, epochs=1)
    with pytest.raises(BadInput, match=r"last\.ckpt was written with other settings"):
        run(tmp_path, resume=True, fingerprint="another")


@pytest.mark.parametrize("contents", [b"", b"torn", b"PK\x03\x04 torn zip"])
def test_a_torn_checkpoint_is_refused(tmp_path: Path, contents: bytes) -> None:
    """A checkpoint that cannot be read is one clear line, not a traceback of torch's."""
    (tmp_path / LAST).write_bytes(contents)
    with pytest.raises(BadInput, match=r"last\.ckpt is no checkpoint of ours"):
        run(tmp_path, resume=True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, r"'fit\.batch_size' must be >= 1, got 0"),
        ({"ema_decay": 1.5}, r"'fit\.ema_decay' must be within 0\.\.1, got 1\.5"),
        ({"patience": -1}, r"'fit\.patience' must be >= 0"),
        ({"min_steps_per_epoch": -1}, r"'fit\.min_steps_per_epoch' must be >= 0"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(
    wrong: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Each is named with its value before the first step."""
    with pytest.raises(BadInput, match=message):
        run(tmp_path, config=FitConfig(**wrong))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_epochs": 0}, r"no epoch was trained and validated.*trainer\.max_epochs"),
        ({"limit_val_batches": 0}, r"no epoch was trained and validated"),
        ({"val_check_interval": 1.5}, r"^trainer: "),
    ],
)
def test_a_trainer_setting_that_cannot_work_is_one_line(
    wrong: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """What leaves nothing to keep, or what Lightning refuses, is one line and no traceback."""
    with pytest.raises(BadInput, match=message) as raised:
        run(tmp_path, **wrong)
    assert "\n" not in str(raised.value)


def test_nothing_to_resume_starts_anew(tmp_path: Path) -> None:
    """--resume without a checkpoint trains from the start: a scheduled job can always say it."""
    _, fitted = run(tmp_path, epochs=1, resume=True)
    assert not fitted.resumed


def test_a_run_that_ended_well_leaves_no_checkpoints(tmp_path: Path) -> None:
    """After `forget` the run's folder holds no checkpoint."""
    run(tmp_path, epochs=1)
    assert (tmp_path / LAST).exists()
    forget(tmp_path)
    assert not list(tmp_path.glob("*.ckpt"))
