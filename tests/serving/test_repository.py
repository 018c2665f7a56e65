"""Which versions serve, which are refused, and what a name means."""

import json
from pathlib import Path

import numpy as np
import pytest

from amiss_export.errors import BundleNotFound, BundleRefused
from amiss_serving.detector import LoadedDetector, load_detector
from amiss_serving.errors import DetectorNotFound
from amiss_serving.repository import DetectorRepository
from amiss_serving.runtimes import RuntimeOptions
from bundle_factory import image_graph, normal_rows, table_scores, write_image_bundle
from bundle_factory import write_table_bundle as write

CPU = RuntimeOptions(device="cpu")


def scanned(models: Path) -> DetectorRepository:
    def load(name: str, version: int) -> LoadedDetector:
        return load_detector(models, name, version, options=CPU)

    repository = DetectorRepository(models, load)
    repository.scan()
    return repository


def served(repository: DetectorRepository) -> list[tuple[str, int]]:
    return [(d.name, d.version) for d in repository.detectors()]


def label(models: Path, name: str, **labels: int) -> None:
    (models / name / "labels.json").write_text(json.dumps(labels))


def spoil(models: Path, name: str, version: int) -> None:
    (models / name / str(version) / "model.onnx").write_bytes(b"not what was exported")


def test_the_newest_version_and_every_labelled_one_are_loaded(tmp_path: Path) -> None:
    """Of versions 1 to 4 with a label on 2, exactly 2 and 4 serve."""
    for _ in range(4):
        write(tmp_path)
    label(tmp_path, "table", canary=2)
    repository = scanned(tmp_path)
    assert served(repository) == [("table", 2), ("table", 4)]
    assert repository.resolve("table").version == 4
    assert repository.resolve("table", "canary").labels == ("canary",)
    assert set(repository.load_duration_s) == set(repository.detectors())


def test_stable_is_what_a_bare_name_means(tmp_path: Path) -> None:
    """With a stable label the bare name is that version, though a newer one serves."""
    write(tmp_path)
    write(tmp_path)
    label(tmp_path, "table", stable=1)
    repository = scanned(tmp_path)
    assert repository.resolve("table").version == 1
    assert repository.resolve("table", "2").version == 2


def test_a_broken_new_version_leaves_the_older_one_serving(tmp_path: Path) -> None:
    """Versions 3 and 2 are corrupt: 1 serves, both are listed with their reason."""
    for _ in range(3):
        write(tmp_path)
    write_image_bundle(tmp_path)
    spoil(tmp_path, "table", 2)
    spoil(tmp_path, "table", 3)
    repository = scanned(tmp_path)
    assert served(repository) == [("image", 1), ("table", 1)]
    assert [(r.name, r.version) for r in repository.refused] == [("table", 3), ("table", 2)]
    reason = repository.refused[0].reason
    assert "model.onnx is not the file that was exported" in reason
    assert str(tmp_path) not in reason


def test_a_refused_stable_version_is_not_replaced(tmp_path: Path) -> None:
    """When stable is refused the bare name is an error that says why; others can be asked."""
    write(tmp_path)
    write(tmp_path)
    label(tmp_path, "table", stable=1)
    spoil(tmp_path, "table", 1)
    repository = scanned(tmp_path)
    with pytest.raises(DetectorNotFound, match=r"version 1 was refused: .*exported"):
        repository.resolve("table")
    assert repository.resolve("table", "2").version == 2


def test_unreadable_labels_refuse_the_detector(tmp_path: Path) -> None:
    """Without its labels nobody knows which version is wanted: none serves, and it is said why."""
    write(tmp_path)
    (tmp_path / "table" / "labels.json").write_text("[")
    repository = scanned(tmp_path)
    assert served(repository) == []
    assert "labels.json" in repository.refused[0].reason


def test_what_is_not_there_is_answered_with_what_is(tmp_path: Path) -> None:
    """An unknown name, version or label names those that are being served."""
    write(tmp_path)
    label(tmp_path, "table", stable=1)
    repository = scanned(tmp_path)
    with pytest.raises(DetectorNotFound, match="no detector 'tabel'; being served: table"):
        repository.resolve("tabel")
    for wanted in ("7", "canary", "-1", "../1"):
        with pytest.raises(DetectorNotFound, match=r"versions \[1\], labels {'stable': 1}"):
            repository.resolve("table", wanted)


def test_a_manifest_that_breaks_its_reader_is_refused_like_any_other(tmp_path: Path) -> None:
    """A manifest nested deeper than a parser can follow takes no other detector down."""
    write(tmp_path)
    write_image_bundle(tmp_path)
    (tmp_path / "table" / "1" / "manifest.json").write_text("[" * 100_000)
    repository = scanned(tmp_path)
    assert served(repository) == [("image", 1)]
    assert [r.name for r in repository.refused] == ["table"]


def test_an_empty_folder_serves_nothing(tmp_path: Path) -> None:
    """No bundles, or no folder at all, is no error: the list is empty."""
    assert served(scanned(tmp_path)) == []
    assert served(scanned(tmp_path / "absent")) == []


def test_a_graph_that_does_not_fit_its_manifest_is_refused(tmp_path: Path) -> None:
    """A table bundle with an image graph inside is refused at load, not at the first caller."""
    write(tmp_path, graph=image_graph())
    with pytest.raises(BundleRefused, match="does not take float32 \\(1, 3\\)"):
        load_detector(tmp_path, "table", 1, options=CPU)


def test_an_absent_version_is_not_found(tmp_path: Path) -> None:
    """Asking for a version that is not on disk says so."""
    with pytest.raises(BundleNotFound):
        load_detector(tmp_path, "table", 1, options=CPU)


def test_a_loaded_detector_scores_by_its_own_rule(tmp_path: Path) -> None:
    """Scores equal the formula; a row is an anomaly exactly when it lies above the threshold."""
    detector = load_detector(tmp_path, "table", write(tmp_path), options=CPU)
    x = np.vstack([normal_rows(50, seed=1), 9 * normal_rows(50, seed=2)])
    scored = detector.score(x, reconstruct=True)
    np.testing.assert_allclose(scored.verdicts.score, table_scores(x), rtol=1e-6)
    above = table_scores(x) > detector.rule.decision.threshold
    np.testing.assert_array_equal(scored.verdicts.is_anomaly, above)
    assert scored.reconstruction is not None
    assert scored.reconstruction.shape == x.shape
    assert detector.score(x).reconstruction is None


def test_labels_that_are_no_file_refuse_the_detector_alone(tmp_path: Path) -> None:
    """A folder in the place of labels.json takes no other detector down."""
    write(tmp_path)
    write_image_bundle(tmp_path)
    (tmp_path / "table" / "labels.json").mkdir()
    repository = scanned(tmp_path)
    assert served(repository) == [("image", 1)]
    assert "labels.json" in repository.refused[0].reason


def test_who_answers_for_a_bare_name(tmp_path: Path) -> None:
    """Each name's stable or newest version; none for a name whose stable is refused."""
    write(tmp_path)
    write(tmp_path)
    write_image_bundle(tmp_path)
    write_image_bundle(tmp_path)
    label(tmp_path, "table", stable=1)
    label(tmp_path, "image", stable=1)
    spoil(tmp_path, "table", 1)
    repository = scanned(tmp_path)
    assert [(d.name, d.version) for d in repository.answering()] == [("image", 1)]
    assert served(repository) == [("image", 1), ("image", 2), ("table", 2)]
    with pytest.raises(DetectorNotFound, match=r"labels {'stable': 1}"):
        repository.resolve("table")


def test_a_refused_detector_is_not_called_version_zero(tmp_path: Path) -> None:
    """Asked for by name alone, the answer holds the reason and no version nobody asked for."""
    write(tmp_path)
    spoil(tmp_path, "table", 1)
    repository = scanned(tmp_path)
    with pytest.raises(DetectorNotFound, match=r"^detector 'table' serves no version; version 1"):
        repository.resolve("table")
