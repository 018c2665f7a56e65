"""A bundle is written whole or not at all, and nothing altered is ever read."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from amiss_export.bundle import (
    BundleRefused,
    check_name,
    list_versions,
    read_bundle,
    read_labels,
    resolve_version,
    split_reference,
)
from amiss_export.errors import BadInput, BundleNotFound
from amiss_export.publish import publish, writing_bundle
from bundle_factory import write_table_bundle


def test_what_was_published_is_what_is_read(tmp_path: Path) -> None:
    """A published bundle reads back with its manifest, its files and its sorted calibration."""
    version = write_table_bundle(tmp_path)
    bundle = read_bundle(tmp_path, "table", version)
    assert (bundle.name, bundle.version) == ("table", 1)
    assert set(bundle.manifest.files) == {"model.onnx", "model.pt", "calibration.npy"}
    assert len(bundle.read("model.onnx")) == bundle.manifest.files["model.onnx"].bytes
    assert (bundle.calibration[1:] >= bundle.calibration[:-1]).all()


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a" * 65, "näme", "x\n", "-x"])
def test_unsafe_names_are_refused(tmp_path: Path, name: str) -> None:
    """A name that is no plain folder name is refused before any path is built from it."""
    with pytest.raises(BadInput, match="detector name"):
        check_name(name)
    with pytest.raises(BadInput, match="detector name"):
        read_bundle(tmp_path, name, 1)


@pytest.mark.parametrize("file", ["model.onnx", "model.pt", "calibration.npy"])
def test_a_flipped_byte_is_refused(tmp_path: Path, file: str) -> None:
    """One changed byte in any file of the bundle refuses the bundle and names the file."""
    path = tmp_path / "table" / str(write_table_bundle(tmp_path)) / file
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)
    with pytest.raises(BundleRefused, match=rf"{file} is not the file that was exported"):
        read_bundle(tmp_path, "table", 1)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """A bundle without one of its listed files is refused by that file's name."""
    (tmp_path / "table" / str(write_table_bundle(tmp_path)) / "model.pt").unlink()
    with pytest.raises(BundleRefused, match=r"model\.pt is missing"):
        read_bundle(tmp_path, "table", 1)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    """A file that is a link to somewhere else is refused even when its contents are right."""
    models = tmp_path / "models"
    path = models / "table" / str(write_table_bundle(models)) / "model.onnx"
    path.rename(tmp_path / "elsewhere.onnx")
    path.symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(BundleRefused, match="leads out of the bundle's folder"):
        read_bundle(models, "table", 1)


def test_a_listed_path_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    """A manifest that lists ../secret is refused before the file is opened."""
    folder = tmp_path / "table" / str(write_table_bundle(tmp_path))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../../secret"] = {"sha256": "0" * 64, "bytes": 1}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "secret").write_text("x")
    with pytest.raises(BundleRefused, match="leads out"):
        read_bundle(tmp_path, "table", 1)


def test_a_version_folder_that_is_a_link_out_is_refused(tmp_path: Path) -> None:
    """A version folder that points outside the models folder is refused."""
    models = tmp_path / "models"
    write_table_bundle(tmp_path / "other")
    (models / "table").mkdir(parents=True)
    (models / "table" / "1").symlink_to(tmp_path / "other" / "table" / "1")
    with pytest.raises(BundleRefused, match="link out of"):
        read_bundle(models, "table", 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema_version": 99}, "newer than 1"),
        ({"schema_version": "1"}, "no schema_version"),
        ({"surprise": 1}, "surprise"),
        ({"name": "other"}, "manifest is of detector 'other'"),
        ({"decision": {}}, "decision"),
    ],
)
def test_a_wrong_manifest_is_refused(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    """A manifest of a newer schema, of another detector or out of shape is refused, saying why."""
    path = tmp_path / "table" / str(write_table_bundle(tmp_path)) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BundleRefused, match=reason):
        read_bundle(tmp_path, "table", 1)


def test_versions_count_up_and_half_written_ones_are_not_listed(tmp_path: Path) -> None:
    """A second bundle is version 2; an abandoned temporary folder is in no list."""
    assert [write_table_bundle(tmp_path), write_table_bundle(tmp_path)] == [1, 2]
    with writing_bundle(tmp_path, "table") as folder:
        (folder / "model.onnx").write_bytes(b"half")
        assert list_versions(tmp_path) == {"table": [1, 2]}
    assert sorted(p.name for p in (tmp_path / "table").iterdir()) == ["1", "2"]


def test_a_number_taken_meanwhile_is_skipped(tmp_path: Path) -> None:
    """Two writers that publish at once get different versions and neither loses its files."""
    first = read_bundle(tmp_path, "table", write_table_bundle(tmp_path))
    with writing_bundle(tmp_path, "table") as one, writing_bundle(tmp_path, "table") as two:
        for folder in (one, two):
            for file in first.manifest.files:
                (folder / file).write_bytes(first.read(file))
        assert {publish(one, first.manifest), publish(two, first.manifest)} == {2, 3}
    assert read_bundle(tmp_path, "table", 2).version == 2


def test_what_a_killed_writer_left_is_removed_later(tmp_path: Path) -> None:
    """A temporary folder of a killed writer is removed by a later one; a live one's is not."""
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from amiss_export.publish import writing_bundle\n"
        "with writing_bundle(Path(sys.argv[1]), 'table') as folder:\n"
        "    (folder / 'model.onnx').write_bytes(b'half')\n"
        "    print(folder, flush=True)\n"
        "    time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        left = Path(writer.stdout.readline().strip())
        an_hour_ago = time.time() - 3600
        os.utime(left, (an_hour_ago, an_hour_ago))
        write_table_bundle(tmp_path)
        assert left.exists(), "its writer is alive"
        writer.send_signal(signal.SIGKILL)
    assert list_versions(tmp_path) == {"table": [1]}
    os.utime(left, (an_hour_ago, an_hour_ago))
    write_table_bundle(tmp_path)
    assert not left.exists()


def test_a_reference_means_number_label_stable_or_newest(tmp_path: Path) -> None:
    """NAME is the stable version, else the newest; NAME@X is a number or a label."""
    for _ in range(3):
        write_table_bundle(tmp_path)
    assert resolve_version(tmp_path, "table") == 3
    (tmp_path / "table" / "labels.json").write_text('{"stable": 2, "canary": 3}')
    assert resolve_version(tmp_path, "table") == 2
    assert resolve_version(tmp_path, "table", "canary") == 3
    assert resolve_version(tmp_path, "table", "1") == 1
    assert split_reference("table@canary") == ("table", "canary")
    for wanted in ("4", "beta", "01", "-1"):
        with pytest.raises(BundleNotFound, match="no version or label"):
            resolve_version(tmp_path, "table", wanted)
    with pytest.raises(BundleNotFound, match="no detector 'other'"):
        resolve_version(tmp_path, "other")


def test_a_torn_labels_file_is_named(tmp_path: Path) -> None:
    """A labels.json that is no readable object of numbers is refused by its path."""
    write_table_bundle(tmp_path)
    labels = tmp_path / "table" / "labels.json"
    labels.write_text('{"stable":')
    with pytest.raises(BundleRefused, match=r"labels\.json"):
        read_labels(tmp_path, "table")
    labels.unlink()
    labels.mkdir()
    with pytest.raises(BundleRefused, match=r"labels\.json"):
        read_labels(tmp_path, "table")
