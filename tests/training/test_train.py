"""From data to a bundle: roles stay apart, promises hold, nothing is half-written."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amiss_export.bundle import ImageInput, TableInput, list_versions, read_bundle
from amiss_export.errors import BadInput, TooFewRows
from amiss_export.parity import onnx_scores
from amiss_training.data import DataOptions, prepare
from amiss_training.evaluate_bundle import evaluate_bundle
from amiss_training.fit import FitConfig
from amiss_training.train import TrainConfig, Trained, train

QUICK: dict[str, Any] = {
    "max_epochs": 3,
    "enable_progress_bar": False,
    "accelerator": "cpu",
}


def table_csv(folder: Path, *, n: int = 400, changed: int | None = None) -> Path:
    """A table of two correlated numbers and a category; the last 40 rows are anomalies."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=n)
    b = a + 0.1 * rng.normal(size=n)
    b[-40:] = -a[-40:] + 3
    if changed is not None:
        b[changed] += 1.0
    lines = [
        f"{x:.6f},{y:.6f},{'red' if i % 3 else 'blue'},{int(i >= n - 40)}"
        for i, (x, y) in enumerate(zip(a, b, strict=True))
    ]
    path = folder / "table.csv"
    path.write_text("\n".join(["a,b,colour,label", *lines]) + "\n")
    return path


def run(models: Path, data: Path | None, *, name: str = "quick", **more: Any) -> Trained:
    config = TrainConfig(
        name=name,
        data=None if data is None else str(data),
        models=str(models),
        runs=str(models.parent / "runs"),
        fit=FitConfig(batch_size=64, min_steps_per_epoch=10, ema_decay=0.9),
        trainer=QUICK,
        **{"options": DataOptions(label_column="label"), "alarm_rate": 0.05, **more},
    )
    trained = train(config, say=lambda _: None)
    assert trained is not None
    return trained


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Trained]:
    folder = tmp_path_factory.mktemp("trained")
    data = table_csv(folder)
    return folder / "models", data, run(folder / "models", data)


def test_a_table_becomes_a_bundle_that_separates(trained: tuple[Path, Path, Trained]) -> None:
    """The bundle reads back, names its columns, and ranks planted anomalies above normals."""
    models, _, result = trained
    bundle = read_bundle(models, "quick", result.version)
    spec = bundle.manifest.input
    assert isinstance(spec, TableInput)
    assert [(c.name, c.kind) for c in spec.columns] == [
        ("a", "number"),
        ("b", "number"),
        ("colour", "category"),
    ]
    assert bundle.manifest.metrics["auroc"] > 0.9
    assert bundle.manifest.parity.rows >= 1_000
    assert (result.path / "report" / "report.html").exists()
    assert "report/report.html" in bundle.manifest.files


def test_the_stored_threshold_is_that_of_the_calibration_rows(
    trained: tuple[Path, Path, Trained],
) -> None:
    """calibration.npy is what the exported graph scores the calibration rows of the same split."""
    models, data, result = trained
    bundle = read_bundle(models, "quick", result.version)
    prepared = prepare(data, DataOptions(label_column="label"), seed=0)
    assert prepared.split_hash == bundle.manifest.provenance.split_hash
    scores = onnx_scores(result.path / "model.onnx", prepared.x[prepared.roles.calibration])
    assert np.array_equal(np.sort(scores), bundle.calibration)
    k = bundle.manifest.decision.k
    assert bundle.manifest.decision.threshold == np.sort(scores)[k - 1]


def test_the_same_seed_writes_the_same_scores(
    trained: tuple[Path, Path, Trained], tmp_path: Path
) -> None:
    """Training twice with one seed gives the same calibration scores to the bit."""
    models, data, result = trained
    again = run(tmp_path / "models", data)
    before = read_bundle(models, "quick", result.version)
    after = read_bundle(tmp_path / "models", "quick", again.version)
    assert np.array_equal(before.calibration, after.calibration)


def test_only_training_rows_shape_the_detector(
    trained: tuple[Path, Path, Trained], tmp_path: Path
) -> None:
    """Changing one calibration row changes at most that row's calibration score."""
    models, data, result = trained
    prepared = prepare(data, DataOptions(label_column="label"), seed=0)
    changed = table_csv(tmp_path, changed=int(prepared.roles.calibration[0]))
    moved = prepare(changed, DataOptions(label_column="label"), seed=0)
    if moved.split_hash["train"] != prepared.split_hash["train"]:
        pytest.fail("the split must not depend on the values of a calibration row")
    again = run(tmp_path / "models", changed)
    before = read_bundle(models, "quick", result.version).calibration
    after = read_bundle(tmp_path / "models", "quick", again.version).calibration
    assert len(np.setdiff1d(after, before)) <= 1


def test_evaluating_on_the_training_file_measures_the_held_out_rows(
    trained: tuple[Path, Path, Trained],
) -> None:
    """`evaluate` on the same file repeats the split and finds the figures training stored."""
    models, data, result = trained
    found = evaluate_bundle(models, "quick", result.version, data=data, overrides={})
    stored = read_bundle(models, "quick", result.version).manifest.metrics
    assert found.metrics["auroc"] == stored["auroc"]
    assert set(found.peers) >= {"isolation_forest", "mahalanobis", "knn", "pca_residual"}
    assert "held-out test rows of its own split" in found.rows


def test_evaluating_on_other_data_measures_every_row(
    trained: tuple[Path, Path, Trained], tmp_path: Path
) -> None:
    """A file it was not trained on is scored whole, and says why no peers stand beside it."""
    models, _, result = trained
    other = table_csv(tmp_path, n=150)
    report = tmp_path / "report"
    found = evaluate_bundle(
        models, "quick", result.version, data=other, overrides={}, report=report
    )
    assert found.metrics["n_test"] == 150
    assert found.peers == {}
    assert "no peers" in found.rows
    assert (report / "report.html").exists()


def test_measuring_rows_it_was_trained_on_is_said(trained: tuple[Path, Path, Trained]) -> None:
    """The training file with another class as normal is no fresh data, and the words say so."""
    models, data, result = trained
    overrides = {"label_column": "colour", "normal_class": "red"}
    found = evaluate_bundle(models, "quick", result.version, data=data, overrides=overrides)
    assert found.metrics["n_test"] == 400
    assert "trained on some of these rows" in found.rows


def test_two_classes_at_once_are_refused_when_evaluating(
    trained: tuple[Path, Path, Trained],
) -> None:
    """--normal-class and --anomaly-class exclude each other here as they do in training."""
    models, data, result = trained
    overrides = {"normal_class": "0", "anomaly_class": "1"}
    with pytest.raises(BadInput, match="exclude each other"):
        evaluate_bundle(models, "quick", result.version, data=data, overrides=overrides)


def test_an_alarm_rate_the_rows_cannot_support_is_refused_before_training(tmp_path: Path) -> None:
    """54 calibration rows cannot support 0.001: refused with the number needed, nothing written."""
    with pytest.raises(TooFewRows, match="needs >= 999 calibration rows, got 54"):
        run(tmp_path / "models", table_csv(tmp_path), alarm_rate=0.001)
    assert list_versions(tmp_path / "models") == {}


def test_a_bad_name_is_refused_before_any_work(tmp_path: Path) -> None:
    """A name that would leave the models folder is refused."""
    with pytest.raises(BadInput, match="detector name"):
        run(tmp_path / "models", table_csv(tmp_path), name="../x")


@pytest.mark.slow
def test_the_digits_starter_separates(tmp_path: Path) -> None:
    """Images from scikit-learn: one digit against the rest, AUROC above 0.98 in a short run."""
    options = DataOptions(loader="digits", normal_class="0", image_size=16)
    result = run(tmp_path / "models", None, name="digits", options=options)
    bundle = read_bundle(tmp_path / "models", "digits", result.version)
    assert isinstance(bundle.manifest.input, ImageInput)
    assert bundle.manifest.metrics["auroc"] > 0.98
    assert list((result.path / "report" / "examples").glob("*.png"))


@pytest.mark.slow
def test_a_killed_training_leaves_nothing_half_listed(tmp_path: Path) -> None:
    """SIGKILL while the bundle is written: only whole ones are listed, the next run works."""
    data = table_csv(tmp_path)
    command = [
        *(sys.executable, "-m", "amiss_cli.main", "train", "--data", str(data)),
        *("--label-column", "label", "--name", "quick", "--alarm-rate", "0.05"),
        *("--models", str(tmp_path / "models"), "--runs", str(tmp_path / "runs")),
        *("--trainer.max_epochs", "2", "--trainer.accelerator", "cpu", "--resume"),
    ]
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    folder = tmp_path / "models" / "quick"
    for delay_s in (0.0, 1.0, 2.5):
        left = set(folder.glob(".writing-*"))
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as training:
            while not set(folder.glob(".writing-*")) - left and training.poll() is None:
                time.sleep(0.02)
            time.sleep(delay_s)
            training.send_signal(signal.SIGKILL)
        for version in list_versions(tmp_path / "models").get("quick", []):
            read_bundle(tmp_path / "models", "quick", version)
    before = len(list_versions(tmp_path / "models").get("quick", []))
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    after = list_versions(tmp_path / "models")["quick"]
    assert len(after) == before + 1
    read_bundle(tmp_path / "models", "quick", after[-1])


@pytest.mark.shared
@pytest.mark.slow
def test_mnist_one_class_separates(shared_data: Path, tmp_path: Path) -> None:
    """Digit 0 of real MNIST against the rest: AUROC >= 0.98 after a short run."""
    options = DataOptions(loader="idx", normal_class="0")
    result = run(tmp_path / "models", shared_data / "mnist10k", name="mnist", options=options)
    assert result.assessment.metrics["auroc"] >= 0.98


@pytest.mark.slow
def test_two_processes_write_one_bundle(tmp_path: Path) -> None:
    """A run spread over two processes publishes one version, not one each."""
    command = [
        *(sys.executable, "-m", "amiss_cli.main", "train", "--recipe", "breast-cancer"),
        *("--models", str(tmp_path / "models"), "--runs", str(tmp_path / "runs")),
        *("--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.max_epochs", "1"),
    ]
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list_versions(tmp_path / "models") == {"breast-cancer": [1]}
