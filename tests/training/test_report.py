"""The report stands alone, holds every figure and trusts no text."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from amiss_export.bundle import (
    Column,
    ImageInput,
    Manifest,
    Output,
    Parity,
    Provenance,
    TableInput,
)
from amiss_export.decision import DecisionRule, calibrate
from amiss_export.decode import decode_image, encode_records
from amiss_export.errors import BadInput
from amiss_training.evaluate import evaluate
from amiss_training.inspection import Inspection
from amiss_training.peers import Peer, peer_table
from amiss_training.report import ReportInputs, write_report
from amiss_training.report_figures import figure_name

NASTY = '<script>alert("x")</script>'
MEMBER = "vae-0"
OF_MEMBER = {"training_curves_vae_0", "latent_space_vae_0"}
CHARTS = {"score_histogram", "score_cdf", "roc", "precision_recall"} | OF_MEMBER
PICTURES = {"most_anomalous", "most_normal", "pixel_maps", "samples_vae_0"}
TABLE = TableInput(
    columns=(
        Column(name=NASTY, kind="number", dtype="float64"),
        Column(name="proto", kind="category", dtype="object", categories=("tcp", "udp")),
    )
)
IMAGE = ImageInput(channels=3, height=6, width=6)


class Page(HTMLParser):
    """The tags of a page, the text between them and what they refer to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = {"src", "srcset", "href", "action", "data", "poster"}
        self.references += [value or "" for name, value in attrs if name in names]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module", params=["table", "image"])
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report on a table and of one on colour images."""
    folder = tmp_path_factory.mktemp(request.param)
    write_report(folder, _inputs(request.param))
    return folder


def test_the_page_refers_to_nothing_outside_itself(report: Path) -> None:
    """Every reference is a data URI, and the style sheet names no URL."""
    html = (report / "report.html").read_text()
    page = Page(html)
    assert page.references
    assert all(reference.startswith("data:image/png;base64,") for reference in page.references)
    for outside in ("http://", "https://", "url(", "@import", '"//'):
        assert outside not in html
    assert len(html) < 2_000_000


def test_every_figure_is_in_the_page_and_beside_it(report: Path) -> None:
    """Each PNG in the folder is shown once, each chart in a light and a dark version."""
    pngs = {path.stem for path in report.glob("*.png")}
    pictures = PICTURES if report.name.startswith("image") else set()
    assert pngs == CHARTS | pictures
    page = Page((report / "report.html").read_text())
    assert page.tags.count("img") == len(pngs)
    assert page.tags.count("source") == len(CHARTS)


def test_text_from_the_data_is_escaped(report: Path) -> None:
    """A column, class or row named like a script is text in the page, never a tag."""
    page = Page((report / "report.html").read_text())
    assert "script" not in page.tags
    assert NASTY in page.text


def test_report_json_holds_metrics_peers_and_decision(report: Path) -> None:
    """report.json is strict JSON with the same figures, and says who beat the detector."""
    summary = json.loads((report / "report.json").read_text())
    assert summary["metrics"]["auroc"] > 0.5
    assert summary["peers"]["knn"]["auroc"] == 1.0
    assert summary["peers"]["knn"]["difference"]["value"] < 0
    failed = {"auroc": None, "auprc": None, "difference": None, "note": "failed: no"}
    assert summary["peers"]["mahalanobis"] == failed
    assert summary["histories"][MEMBER][2] == {"epoch": 2, "train_loss": 1 / 3, "val_loss": 2.0}
    assert summary["inspections"][MEMBER]["active_units"] == 3
    assert summary["inspections"][MEMBER]["readouts"]["elbo"]["auroc"] == 0.75
    assert summary["decision"]["k"] == 95
    assert summary["beaten_by_a_peer"] is True


def test_the_page_says_what_a_reader_must_not_miss(report: Path) -> None:
    """Verdict, the better peer, the failed peer, the oracle mark and the notes are in the text."""
    text = Page((report / "report.html").read_text()).text
    summary = json.loads((report / "report.json").read_text())
    for sentence in (
        summary["verdict"].replace(" %", "\N{NO-BREAK SPACE}%"),
        "5 nearest neighbours (1.0000) beats this detector",
        "the difference leaves out 0",
        "3 of 4",
        "conformal quantile of 99 held-out normals",
        "needs rows of another kind",
        "failed: no",
        "oracle",
        "a note to print",
    ):
        assert sentence in text


def test_examples_are_the_extreme_rows_as_they_came_in(report: Path) -> None:
    """The example files decode to the test rows of the highest and the lowest score."""
    inputs = _inputs("table" if report.name.startswith("table") else "image")
    for stem, row in (
        ("most_anomalous_0", int(inputs.score.argmax())),
        ("most_normal_0", int(inputs.score.argmin())),
    ):
        np.testing.assert_array_equal(_read_example(report / "examples", stem), inputs.x[row])


def test_one_class_report_leaves_out_what_cannot_be_drawn(tmp_path: Path) -> None:
    """Without anomalies there is no ROC; the page says why and keeps the rest."""
    write_report(tmp_path, _inputs("table", anomalies=0))
    assert {p.stem for p in tmp_path.glob("*.png")} == CHARTS - {"roc", "precision_recall"}
    text = Page((tmp_path / "report.html").read_text()).text
    assert "need both normals and anomalies" in text
    assert "cannot be said" in text


def test_each_member_has_figures_of_its_own(tmp_path: Path) -> None:
    """Two members give two pairs of figures, each under its member's heading."""
    inputs = _inputs("table")
    two = {name: next(iter(inputs.inspections.values())) for name in ("vae-0", "aae")}
    histories = dict.fromkeys(two, inputs.histories[MEMBER])
    write_report(
        tmp_path, ReportInputs(**{**vars(inputs), "inspections": two, "histories": histories})
    )
    drawn = {path.stem for path in tmp_path.glob("*.png")}
    assert {figure_name("latent_space", name) for name in two} <= drawn
    assert {figure_name("training_curves", name) for name in two} <= drawn
    text = Page((tmp_path / "report.html").read_text()).text
    assert "What member vae-0 has learned" in text
    assert "What member aae has learned" in text


def test_a_report_without_members_says_nothing_of_learning(tmp_path: Path) -> None:
    """A bundle measured again has no histories and no inspections: the page leaves them out."""
    bare = ReportInputs(**{**vars(_inputs("image")), "inspections": {}, "histories": {}})
    write_report(tmp_path, bare)
    assert "learned" not in Page((tmp_path / "report.html").read_text()).text
    assert not OF_MEMBER & {path.stem for path in tmp_path.glob("*.png")}


def test_lengths_that_differ_are_refused(tmp_path: Path) -> None:
    """Names for fewer rows than scores raise BadInput and write nothing."""
    inputs = _inputs("table")
    short = ReportInputs(**{**vars(inputs), "names": inputs.names[1:]})
    with pytest.raises(BadInput, match="equal length"):
        write_report(tmp_path, short)
    assert not list(tmp_path.iterdir())


def _inputs(kind: str, *, anomalies: int = 40) -> ReportInputs:
    """A detector whose score is noisy, beside a kNN that is perfect and a peer that failed."""
    rng = np.random.default_rng(0)
    truth = np.arange(120 + anomalies) >= 120
    score = (rng.normal(size=len(truth)) + 2 * truth).astype(np.float32)
    decision, calibration = calibrate(rng.normal(size=99), alarm_rate=0.05)
    label = np.where(truth, NASTY, "normal")
    peers = {
        "knn": Peer(truth + 0.1 * rng.random(len(truth)), "among 99 normals"),
        "mahalanobis": Peer(None, "failed: no"),
    }
    verdicts = DecisionRule(decision, calibration)(score)
    x = _rows(rng, len(truth)) if kind == "table" else _images(rng, len(truth))
    return ReportInputs(
        title="A report",
        manifest=_manifest(TABLE if kind == "table" else IMAGE, decision),
        metrics=evaluate(verdicts=verdicts, is_anomaly=truth, label=label, decision=decision),
        peers=peer_table(peers, truth, ours=score),
        peer_scores=peers,
        score=score,
        is_anomaly=truth,
        label=label,
        names=[f"{NASTY} {i}" for i in range(len(truth))],
        x=x,
        reconstruct=lambda rows: np.zeros_like(rows, dtype=np.float32),
        histories={
            MEMBER: [{"epoch": i, "train_loss": 1 / (i + 1), "val_loss": 2.0} for i in range(3)]
        },
        inspections={MEMBER: _inspection(x, rng)},
        notes=["a note to print"],
    )


def _inspection(x: NDArray[Any], rng: np.random.Generator) -> Inspection:
    is_image = x.ndim == 4
    return Inspection(
        latent_dim=4,
        active_units=3,
        codes=rng.normal(size=(50, 2)).astype(np.float32),
        code_rows=np.arange(50),
        codes_variance=0.8,
        samples=x[:16].astype(np.float32),
        quality={"n": 9, "psnr": 20.5, "ssim": 0.5} if is_image else None,
        readout="whitened_path",
        readouts={
            "whitened_path": {"auroc": 0.9, "auprc": 0.8, "note": ""},
            "elbo": {"auroc": 0.75, "auprc": 0.5, "note": ""},
            "ssim": {"auroc": None, "auprc": None, "note": "needs rows of another kind"},
        },
        pixel_maps=(lambda images: images[:, 0] / 255) if is_image else None,
        pixel_auroc=None,
    )


def _rows(rng: np.random.Generator, n: int) -> NDArray[np.float32]:
    return np.c_[rng.normal(size=n), rng.integers(0, 4, n)].astype(np.float32)


def _images(rng: np.random.Generator, n: int) -> NDArray[np.uint8]:
    return rng.integers(0, 256, (n, IMAGE.channels, IMAGE.height, IMAGE.width), dtype=np.uint8)


def _manifest(spec: TableInput | ImageInput, decision: Any) -> Manifest:
    return Manifest(
        name="planted",
        detector="vae",
        readout="elbo",
        input=spec,
        outputs=(Output(name="score", shape=(-1,)),),
        decision=decision,
        provenance=Provenance(
            created="2026-01-01T00:00:00Z",
            recipe=None,
            seed=0,
            config={},
            data_hash="00",
            split_hash={},
            split_rows={"train": 1},
            duplicate_rows_removed=0,
            git_commit=None,
            libraries={"numpy": np.__version__},
        ),
        parity=Parity(rows=1000, tolerance=1e-5, onnx=0, torchscript=0),
    )


def _read_example(folder: Path, stem: str) -> NDArray[Any]:
    table = folder / f"{stem}.json"
    if table.exists():
        return encode_records(json.loads(table.read_text())["records"], TABLE).rows[0]
    return decode_image((folder / f"{stem}.png").read_bytes(), IMAGE)
