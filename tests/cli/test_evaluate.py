"""`amiss evaluate`: figures on the screen, the same in a file, and one line for what is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest

from amiss_cli.main import main
from bundle_factory import write_image_bundle


@pytest.fixture
def argv(tmp_path: Path) -> list[str]:
    """The command for a bundle of grey images, on twelve grey (0) and eight black ones (1)."""
    write_image_bundle(tmp_path / "models")
    images = np.zeros((20, 8, 8), dtype=np.uint8)
    images[:12] = 127
    np.savez(tmp_path / "mixed.npz", X=images, y=np.repeat([0, 1], [12, 8]))
    models, data = str(tmp_path / "models"), str(tmp_path / "mixed.npz")
    return ["evaluate", "image", "--models", models, "--data", data]


def test_the_file_holds_the_figures_that_are_printed(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--json holds AUROC and F1 as printed, and F1 is printed with how its threshold was chosen."""
    assert main([*argv, "--json", str(tmp_path / "figures.json")]) == 0
    shown = capsys.readouterr()
    metrics = json.loads((tmp_path / "figures.json").read_text())["metrics"]
    assert f"{'this detector':18}{metrics['auroc']:8.4f}" in shown.out
    assert f"F1 {metrics['f1']:.4f} (conformal quantile of 200 held-out normals" in shown.out
    assert "all 20 rows" in shown.err


def test_the_classes_can_be_turned_round(argv: list[str], tmp_path: Path) -> None:
    """With --normal-class 1 the black images are normal, and AUROC turns over."""
    found = []
    for more in ([], ["--normal-class", "1"]):
        assert main([*argv, *more, "--json", str(tmp_path / "f.json")]) == 0
        found.append(json.loads((tmp_path / "f.json").read_text())["metrics"]["auroc"])
    assert found == [1.0, 0.0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--normal-class", "7"], "no row has the normal class '7'"),
        (["--normal-class", "0", "--anomaly-class", "1"], "exclude each other"),
        (["--data", "nowhere.npz"], "nowhere.npz: no such file"),
        (["--datum", "x"], "--datum"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    argv: list[str], more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each mistake names itself on one line."""
    assert main([*argv, *more]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1
