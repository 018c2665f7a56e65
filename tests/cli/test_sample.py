"""`amiss sample`, as a person at a terminal sees it."""

from pathlib import Path

import pytest
from PIL import Image

from amiss_cli.main import main
from bundle_factory import write_table_bundle
from decoder_bundles import images_with_decoder, table_with_decoder


def test_a_grid_is_written_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command says how many samples of which version lie where, and the picture opens."""
    models, grid = tmp_path / "models", tmp_path / "grid.png"
    bundle = images_with_decoder(models)
    assert main(["sample", "image", "--models", str(models), "--output", str(grid)]) == 0
    said = capsys.readouterr().out
    assert f"16 sample(s) from image@{bundle.version}" in said
    assert str(grid) in said
    with Image.open(grid) as picture:
        assert picture.format == "PNG"


def test_an_ensembles_members_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The members stand in the order of their blocks."""
    table_with_decoder(tmp_path, ("vae", "aae"))
    argv = ["sample", "table@2", "--models", str(tmp_path), "--output", str(tmp_path / "a.csv")]
    assert main([*argv, "--count", "3"]) == 0
    assert "3 of each of vae, aae from table@2" in capsys.readouterr().out
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 7


def test_an_old_bundle_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a decoder the command fails with one line that says what to do."""
    write_table_bundle(tmp_path)
    argv = ["sample", "table", "--models", str(tmp_path), "--output", str(tmp_path / "a.csv")]
    assert main(argv) == 2
    error = capsys.readouterr().err.strip()
    assert "train it again" in error
    assert len(error.splitlines()) == 1
