"""`amiss export`, as a person at a terminal sees it."""

from pathlib import Path
from zipfile import ZipFile

import pytest

from amiss_cli.main import main
from amiss_serving.torchserve import HANDLER
from bundle_factory import write_table_bundle


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_table_bundle(tmp_path / "models")
    return tmp_path / "models"


def export(models: Path, *options: str, reference: str = "table") -> list[str]:
    return ["export", reference, "--models", str(models), *options]


@pytest.mark.parametrize(
    ("options", "model"), [((), "model.pt"), (("--onnx",), "model.onnx.pt")], ids=["pt", "onnx"]
)
def test_an_archive_is_written_and_named(
    options: tuple[str, ...],
    model: str,
    models: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """NAME.mar is in a folder made for it, with our handler and the model that was asked for."""
    store = tmp_path / "new" / "store"
    assert main(export(models, "--mar", *options, "--output", str(store))) == 0
    assert capsys.readouterr().out.rstrip().endswith(str(store / "table.mar"))
    with ZipFile(store / "table.mar") as archive:
        assert model in archive.namelist()
        assert archive.read("handler.py") == HANDLER.read_bytes()


def test_a_version_is_taken_by_label(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """NAME@LABEL is the labelled version, not the newest."""
    write_table_bundle(models)
    (models / "table" / "labels.json").write_text('{"old": 1}')
    options = ("--mar", "--output", str(tmp_path / "store"))
    assert main(export(models, *options, reference="table@old")) == 0
    assert capsys.readouterr().out.startswith("table@1 ")


def test_another_version_does_not_overwrite(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second version in the same folder is exit code 2, one line, and the first one stays."""
    write_table_bundle(models, seed=1)
    options = ("--mar", "--output", str(tmp_path / "store"))
    assert main(export(models, *options, reference="table@1")) == 0
    before = (tmp_path / "store" / "table.mar").read_bytes()
    assert main(export(models, *options, reference="table@2")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "another archive than that of table@2" in line
    assert (tmp_path / "store" / "table.mar").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--output", "store"), 2, "required: --mar"),
        (("--mar",), 2, "required: --output"),
        (("--mar", "--output", __file__), 1, "test_export.py"),
    ],
)
def test_a_wrong_option_is_one_line(
    options: tuple[str, ...],
    code: int,
    message: str,
    models: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The line names the option or the file."""
    assert main(export(models, *options)) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_detector_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A misspelt name is exit code 2, and no folder is made for it."""
    store = tmp_path / "store"
    assert main(export(tmp_path, "--mar", "--output", str(store), reference="tabel")) == 2
    assert "no detector 'tabel'" in capsys.readouterr().err
    assert not store.exists()
