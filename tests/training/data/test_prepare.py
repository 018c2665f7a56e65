"""Prepare: the whole way from a file to rows in roles, for every sort of data."""

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from amiss_export.bundle import ImageInput, TableInput
from amiss_export.errors import BadInput, TooFewRows
from amiss_training.data import DataOptions, Prepared, class_names, load_labelled, prepare
from amiss_training.data.files import sha256_of
from amiss_training.data.splits import role_hash, row_hashes

RNG = np.random.default_rng(3)


def write_table(path: Path, *, n: int = 200, repeats: int = 0) -> Path:
    """Numbers, a category, an id, a constant and a label; some rows repeat apart from their id."""
    rows = [
        f"{RNG.normal():.6f},{RNG.choice(['x', 'y', ''])},id-{{}},1,{int(i % 10 == 0)}"
        for i in range(n)
    ]
    rows += rows[:repeats]
    lines = [row.format(i) for i, row in enumerate(rows)]
    path.write_text("\n".join(["a,b,id,one,y", *lines]) + "\n")
    return path


def held_apart(prepared: Prepared) -> bool:
    """Whether no normal row of one role equals a normal row of another (defect D8)."""
    hashes = row_hashes(prepared.x)
    sets = [
        set(hashes[index[~prepared.is_anomaly[index]]].tolist())
        for _, index in prepared.roles.items()
    ]
    return sum(map(len, sets)) == len(set.union(*sets))


LABELLED = DataOptions(label_column="y")


def test_table_end_to_end(tmp_path: Path) -> None:
    """Rows, roles, hashes and counts of a labelled table agree with each other."""
    path = write_table(tmp_path / "t.csv", n=400)
    found = prepare(path, LABELLED, seed=0)
    assert isinstance(found.input, TableInput)
    assert [c.name for c in found.input.columns] == ["a", "b"]
    assert found.x.dtype == np.float32
    assert found.x.shape == (400, 2)
    assert found.is_anomaly.sum() == 40
    assert set(found.roles.test[found.is_anomaly[found.roles.test]]) == set(
        np.flatnonzero(found.label == "1")
    )
    assert sum(found.split_rows.values()) == 400
    assert found.split_hash["train"] == role_hash(found.x, found.roles.train)
    assert found.data_hash == sha256_of([path])
    assert found.classes.normal == "0"


def test_no_normal_row_stands_in_two_roles(tmp_path: Path) -> None:
    """Rows that differ only in a dropped identifier stay together, half the table repeating."""
    path = write_table(tmp_path / "t.csv", n=300, repeats=300)
    found = prepare(path, LABELLED, seed=0)
    assert found.duplicate_rows_removed == 0
    assert held_apart(found)
    assert found.split_rows["train"] == pytest.approx(0.6 * 540, abs=30)


def test_unseen_categories_and_late_constants_are_held_apart(tmp_path: Path) -> None:
    """Normals that the encoding makes equal end in one role, whatever the seed."""
    lines = [f"{i % 4},v{i % 90},{int(i == 7)}" for i in range(180)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,c", *lines]) + "\n")
    for seed in range(5):
        assert held_apart(prepare(tmp_path / "t.csv", DataOptions(), seed=seed))


def test_deduplicate_removes_repeats_first(tmp_path: Path) -> None:
    """Repeats are gone before the division, their number recorded, the first ones kept."""
    path = write_table(tmp_path / "t.csv", n=300, repeats=120)
    found = prepare(path, DataOptions(label_column="y", deduplicate=True), seed=0)
    assert found.duplicate_rows_removed == 120
    assert found.names == [str(i) for i in range(300)]
    assert any("120 of 420 rows (28.6%)" in note for note in found.notes)


def test_same_features_with_another_label_are_no_repeat(tmp_path: Path) -> None:
    """An anomaly equal to a normal stays, in test, and is told."""
    lines = [f"{i},0" for i in range(40)] + [f"{i},1" for i in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["a,y", *lines]) + "\n")
    found = prepare(tmp_path / "t.csv", DataOptions(label_column="y", deduplicate=True), seed=0)
    assert found.duplicate_rows_removed == 0
    train = found.split_rows["train"]
    assert f"{train} anomalies in test equal a row that is trained on" in found.notes


def test_columns_are_told_by_training_rows_alone(tmp_path: Path) -> None:
    """Changing a row outside training leaves the input as it was (defect D4)."""
    path = write_table(tmp_path / "t.csv")
    before = prepare(path, LABELLED, seed=0)
    lines = path.read_text().splitlines()
    lines[1 + before.roles.calibration[0]] = "1e6,never,id-x,2,0"
    path.write_text("\n".join(lines) + "\n")
    after = prepare(path, LABELLED, seed=0)
    assert after.input == before.input
    assert "1 in calibration" in " ".join(after.notes)


def test_seed_repeats_the_division(tmp_path: Path) -> None:
    """The same seed gives the same hashes, another seed others."""
    path = write_table(tmp_path / "t.csv")
    first, again, other = (prepare(path, LABELLED, seed=seed).split_hash for seed in (0, 0, 1))
    assert first == again
    assert first["train"] != other["train"]


def test_unlabelled_rows_are_all_normal(tmp_path: Path) -> None:
    """Without a label column the former label is a feature and nothing is an anomaly."""
    found = prepare(write_table(tmp_path / "t.csv"), DataOptions(), seed=0)
    assert not found.is_anomaly.any()
    assert set(found.label) == {"normal"}


def test_max_rows_draws_at_random(tmp_path: Path) -> None:
    """max_rows takes rows from the whole file, not its head, and keeps their numbers."""
    found = prepare(write_table(tmp_path / "t.csv"), DataOptions(max_rows=50), seed=0)
    rows = [int(name) for name in found.names]
    assert len(rows) == 50
    assert rows == sorted(rows)
    assert max(rows) > 100


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,y\n1,0\n1,2,0\n", LABELLED, "line 3: expected 2 fields"),
        ("a,z\n1,0\n", LABELLED, "no column 'y'; there: 'a', 'z'"),
        ("a,y\n1,0\n", DataOptions(category_columns=("q",)), "no column 'q'; there: 'a', 'y'"),
        ("", LABELLED, "the file is empty"),
        ("a,y\n1,1\n2,1\n", LABELLED, "no row has the normal class '0'; classes there: '1'"),
        ("a,y\n1,\n2,1\n", LABELLED, "line 2, column 'y': expected a label, got none"),
        ("a,y\ninf,0\n2,0\n", LABELLED, "line 2, column 'a': expected a finite number"),
        ("a,y\n" + "3,0\n" * 9, LABELLED, "need >= 4 distinct normal rows, got 1 (all are equal)"),
        (
            "a,y\n" + "".join(f"{i},0\n" for i in range(9)),
            DataOptions(anomaly_class="1"),
            "class '1' was named but the rows have no labels",
        ),
    ],
)
def test_malformed_tables_are_named(
    tmp_path: Path, text: str, options: DataOptions, message: str
) -> None:
    """Each sort of unusable table gives one line that names file and place."""
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(BadInput) as refusal:
        prepare(path, options, seed=0)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert str(path) in str(refusal.value)


def test_constant_columns_are_refused(tmp_path: Path) -> None:
    """When every column is constant among the training rows there is nothing to learn."""
    lines = ["a,b,y", *(f"1,{'x' * (i > 0)},{int(i > 20)}" for i in range(40))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    with pytest.raises(TooFewRows, match="distinct normal rows"):
        prepare(tmp_path / "t.csv", LABELLED, seed=0)


def test_breast_cancer_starter() -> None:
    """The table starter takes benign as normal and reads all thirty measurements."""
    found = prepare(None, DataOptions(loader="breast-cancer"), seed=0)
    assert found.x.shape == (569, 30)
    assert int((~found.is_anomaly).sum()) == 357
    assert found.classes.normal == "benign"


def test_load_labelled_reads_rows_as_they_were_prepared(tmp_path: Path) -> None:
    """With the bundle's input the same file gives the same rows and labels."""
    path = write_table(tmp_path / "t.csv")
    found = prepare(path, LABELLED, seed=0)
    x, label, names = load_labelled(path, found.input)
    np.testing.assert_array_equal(x, found.x)
    assert label is not None
    assert label.tolist() == found.label.tolist()
    assert names == found.names


def test_load_labelled_without_labels(tmp_path: Path) -> None:
    """A file that lacks the label column is read without; asked for by name it is refused."""
    found = prepare(write_table(tmp_path / "t.csv"), LABELLED, seed=0)
    (tmp_path / "u.csv").write_text("b,a\nx,1\n")
    x, label, _ = load_labelled(tmp_path / "u.csv", found.input)
    assert label is None
    assert x[0, 0] == 1
    with pytest.raises(BadInput, match=r"u\.csv: no column 'y'; there: 'b', 'a'"):
        load_labelled(tmp_path / "u.csv", found.input, label_column="y")


def test_load_labelled_images(tmp_path: Path) -> None:
    """Images are resized to the bundle's input; a table for an image detector is refused."""
    np.savez(tmp_path / "i.npz", X=np.zeros((3, 6, 6), dtype=np.uint8), y=np.array([0, 1, 0]))
    spec = ImageInput(channels=1, height=3, width=3)
    x, label, names = load_labelled(tmp_path / "i.npz", spec)
    assert (x.shape, names) == ((3, 1, 3, 3), ["0", "1", "2"])
    assert label is not None
    assert label.tolist() == ["0", "1", "0"]
    with pytest.raises(BadInput, match="the detector takes images, got a table"):
        load_labelled(write_table(tmp_path / "t.csv"), spec)


def test_classes_are_told_without_knowing_the_normal_one(tmp_path: Path) -> None:
    """No class need be called 0: of tables, of arrays and of folders every class is named once."""
    (tmp_path / "t.csv").write_text("a,y\n" + "1,cat\n2,dog\n3,cat\n")
    np.savez(tmp_path / "i.npz", X=np.zeros((3, 6, 6), dtype=np.uint8), y=np.array([7, 8, 7]))
    assert class_names(tmp_path / "t.csv", LABELLED) == ["cat", "dog"]
    assert class_names(tmp_path / "i.npz", DataOptions()) == ["7", "8"]
    for name in ("left", "right"):  # files that cannot be decoded: only their folders count
        (tmp_path / "folder" / name).mkdir(parents=True)
        (tmp_path / "folder" / name / "0.png").write_bytes(b"")
    assert class_names(tmp_path / "folder", DataOptions()) == ["left", "right"]


def test_classes_of_rows_without_labels_are_refused(tmp_path: Path) -> None:
    """Without a label column there are no classes to name, and the file is."""
    with pytest.raises(BadInput, match=r"t\.csv: expected rows of several classes"):
        class_names(write_table(tmp_path / "t.csv"), DataOptions())


def test_truncated_gzip_is_refused(tmp_path: Path) -> None:
    """A download that broke off does not train on half of the rows."""
    whole = gzip.compress(b"a,b\n" + b"".join(b"%d,%d\n" % (i, i % 7) for i in range(9999)))
    (tmp_path / "t.csv.gz").write_bytes(whole[:-100])
    with pytest.raises(BadInput, match=r"t\.csv\.gz: the file is cut off"):
        prepare(tmp_path / "t.csv.gz", DataOptions(), seed=0)


def test_reading_data_needs_no_torch() -> None:
    """Importing the data room does not import torch."""
    code = "import sys, amiss_training.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.shared
def test_kdd99_keeps_every_row_and_family(shared_data: Path) -> None:
    """The whole file is read, 'back' included, and 348,435 repeats are removed (defects D3, D9)."""
    path = shared_data / "kdd99" / "kddcup.data_10_percent.gz"
    found = prepare(path, DataOptions(deduplicate=True), seed=0)
    assert found.duplicate_rows_removed == 348_435
    assert len(found.x) == 494_021 - 348_435
    assert len(set(found.label)) == 23
    assert "back" in found.label
    assert held_apart(found)


@pytest.mark.shared
def test_mnist_counts(shared_data: Path) -> None:
    """The IDX pair gives 10,000 distinct images with the published class counts."""
    found = prepare(shared_data / "mnist10k", DataOptions(), seed=0)
    counts = [int((found.label == str(digit)).sum()) for digit in range(10)]
    assert counts == [1001, 1127, 991, 1032, 980, 863, 1014, 1070, 944, 978]
    assert found.x.shape == (10_000, 1, 28, 28)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "shape", "anomalies"),
    [
        ("arrhythmia.mat", (452, 274), 66),
        ("cardio.npz", (1831, 21), 176),
        ("pendigits.npz", (6870, 16), 156),
        ("satellite.npz", (6435, 36), 2036),
        ("thyroid.npz", (3772, 6), 93),
    ],
)
def test_published_tables(
    shared_data: Path, name: str, shape: tuple[int, int], anomalies: int
) -> None:
    """Each table has its published rows, columns (constants dropped or not) and anomalies."""
    found = prepare(shared_data / "tabular" / name, DataOptions(), seed=0)
    assert isinstance(found.input, TableInput)
    assert len(found.x) == shape[0]
    assert len(found.input.columns) + len(found.input.dropped) == shape[1]
    assert int(found.is_anomaly.sum()) == anomalies
    assert held_apart(found)
