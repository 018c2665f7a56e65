"""One cell of a sweep: the figures a bundle's report would show, peers and controls beside them."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amiss_export.bundle import read_bundle
from amiss_export.errors import TooFewRows
from amiss_training.config import TrainConfig
from amiss_training.data import DataOptions
from amiss_training.detectors import EnsembleConfig
from amiss_training.fit import FitConfig
from amiss_training.learn import learn
from amiss_training.results import Result
from amiss_training.sweep_job import Job, run_job
from amiss_training.train import train


def table(folder: Path) -> Path:
    """Two correlated numbers; the last 40 of 200 rows break the correlation."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=200)
    b = a + 0.5 * rng.normal(size=200)
    b[-40:] = 1 - a[-40:]
    path = folder / "table.csv"
    lines = [f"{x:.5f},{y:.5f},{int(i >= 160)}" for i, (x, y) in enumerate(zip(a, b, strict=True))]
    path.write_text("\n".join(["a,b,label", *lines]) + "\n")
    return path


def pictures(folder: Path) -> Path:
    """Bars that stand (0) and lie (1), 60 of each, 12x12 pixels."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 40, (120, 12, 12)).astype(np.uint8)
    for i, image in enumerate(x):
        at = int(rng.integers(2, 9))
        (image if i < 60 else image.T)[:, at : at + 2] += 200
    path = folder / "bars.npz"
    np.savez(path, X=x, y=np.repeat([0, 1], 60))
    return path


def job(folder: Path, data: Path, **changed: Any) -> Job:
    """A quick job with peers; `changed` are the job's fields, or the run's in `run`."""
    run: dict[str, Any] = {
        "name": "cell",
        "recipe": "table",
        "data": str(data),
        "models": str(folder / "models"),
        "runs": str(folder),
        "alarm_rate": 0.1,
        "fit": FitConfig(batch_size=64, min_steps_per_epoch=30, ema_decay=0.5, log="none"),
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False},
        **changed.pop("run", {}),
    }
    fields: dict[str, Any] = {
        "data": data.stem,
        "over": "none",
        "class_": "",
        "detectors": ("vae",),
        "with_peers": True,
        "all_readouts": False,
        "control": None,
        "hashes": {"peers": "p", "vae": "v", "ensemble": "e"},
        "commit": "abc",
    }
    return Job(config=TrainConfig(**run), **(fields | changed))


LABELLED: dict[str, Any] = {"options": DataOptions(label_column="label")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this file's tests."""
    return tmp_path_factory.mktemp("cell")


@pytest.fixture(scope="module")
def rows(folder: Path) -> dict[str, Result]:
    """What a job with peers, every read-out, a control and an ensemble of one yields, by method."""
    one = EnsembleConfig(members=("vae",), seeds=1)
    whole = job(
        folder,
        table(folder),
        run={**LABELLED, "ensemble": one},
        detectors=("ensemble", "vae"),
        all_readouts=True,
        control=True,
    )
    return {row.method: row for part in run_job(whole) for row in part}


def test_figures_are_those_of_the_bundle_that_train_writes(
    rows: dict[str, Result], folder: Path
) -> None:
    """Without any export, ranking and threshold figures equal the bundle's manifest's."""
    config = job(folder, folder / "table.csv", run=LABELLED).config
    trained = train(config, say=lambda _: None)
    assert trained is not None
    metrics = read_bundle(folder / "models", "cell", trained.version).manifest.metrics
    ours = rows["vae"]
    for name in ("auroc", "auprc", "fpr_at_95_tpr", "precision", "recall", "f1", "flagged_share"):
        assert getattr(ours, name) == pytest.approx(metrics[name]), name
    assert ours.false_alarm_share == pytest.approx(metrics["false_alarm_share"])
    assert (ours.n_test, ours.prevalence) == (metrics["n_test"], metrics["prevalence"])
    assert rows["knn"].auroc == pytest.approx(trained.assessment.peers["knn"]["auroc"])


def test_every_row_is_of_the_same_rows(rows: dict[str, Result]) -> None:
    """All methods share split, counts and prevalence, and peers have no threshold figures."""
    assert len({(r.split_hash, r.n_seen, r.n_test, r.prevalence) for r in rows.values()}) == 1
    first = rows["vae"]
    assert first.n_train < first.n_seen
    peers = [r for r in rows.values() if r.kind == "peer"]
    assert {"isolation_forest", "knn"} <= {r.method for r in peers}
    assert all(r.f1 is None and r.auroc is not None for r in peers)


def test_other_readouts_are_of_the_same_model(rows: dict[str, Result]) -> None:
    """Each read-out the detector offers for tables has a row named by it, the one in use apart."""
    readouts = {r.readout for r in rows.values() if r.kind == "readout"}
    assert {"elbo", "reconstruction"} <= readouts
    assert rows["vae"].readout not in readouts
    assert rows["vae/elbo"].auroc != rows["vae"].auroc


def test_the_control_has_learned_nothing(rows: dict[str, Result]) -> None:
    """The untrained network has a row under the same read-out, with figures of its own."""
    control = rows["vae/untrained"]
    assert (control.kind, control.readout) == ("control", rows["vae"].readout)
    assert control.auprc != rows["vae"].auprc


def test_an_ensemble_takes_the_members_the_job_has_trained(rows: dict[str, Result]) -> None:
    """An ensemble of the very VAE that stands alone ranks like it, and its time counts as well."""
    vae, ensemble = rows["vae"], rows["ensemble"]
    assert ensemble.auroc == vae.auroc
    assert vae.seconds is not None
    assert ensemble.seconds is not None
    assert ensemble.seconds > vae.seconds


def test_a_known_member_is_not_trained_again(folder: Path) -> None:
    """learn() puts the very member it is given into the ensemble."""
    from amiss_training.data import prepare
    from amiss_training.learn import plans

    config = job(folder, table(folder), run=LABELLED).config
    prepared = prepare(Path(str(config.data)), config.options, seed=0)
    alone = learn(config, prepared, run_dir=folder / "alone")
    known = {plans(config)[0]: alone.members[0]}
    both = dataclasses.replace(
        config, detector="ensemble", ensemble=EnsembleConfig(members=("vae",), seeds=1)
    )
    again = learn(both, prepared, run_dir=folder / "both", trained=known)
    assert again.members[0] is alone.members[0]


def test_images_bring_their_control_unasked(folder: Path) -> None:
    """With control left open, images have a row of the untrained network and tables have none."""
    images = job(folder, pictures(folder), with_peers=False)
    assert [r.method for part in run_job(images) for r in part] == ["vae", "vae/untrained"]
    rows = job(folder, table(folder), run=LABELLED, with_peers=False)
    assert [r.method for part in run_job(rows) for r in part] == ["vae"]


def test_too_few_calibration_rows_are_refused_before_the_peers(folder: Path) -> None:
    """An alarm rate the rows cannot support ends the job before its first row."""
    hopeless = job(folder, table(folder), run={**LABELLED, "alarm_rate": 1e-4})
    with pytest.raises(TooFewRows):
        next(run_job(hopeless))


def test_a_share_named_by_the_protocol_gives_every_method_its_oracle(folder: Path) -> None:
    """With oracle_flag_share, ours and peers alike have an F1 of the top share of test scores."""
    options = DataOptions(label_column="label", oracle_flag_share=0.5)
    found = job(folder, table(folder), run={"options": options})
    rows = [row for part in run_job(found) for row in part]
    assert all(row.oracle_f1 is not None for row in rows if row.auroc is not None)
