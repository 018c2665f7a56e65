"""`amiss models`: list, show, verify and recalibrate, as a person at a terminal sees them."""

import json
from pathlib import Path

import pytest

from amiss_cli.models import main
from amiss_export.bundle import read_bundle
from amiss_export.errors import BadInput, BundleNotFound, BundleRefused, TooFewRows
from bundle_factory import write_image_bundle, write_table_bundle


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """table@1 (stable), table@2, image@1, and bad@1 with a flipped byte."""
    folder = tmp_path / "models"
    write_table_bundle(folder)
    write_table_bundle(folder, threshold_rate=0.1)
    write_image_bundle(folder)
    write_table_bundle(folder, "bad")
    (folder / "table" / "labels.json").write_text('{"stable": 1}')
    onnx = folder / "bad" / "1" / "model.onnx"
    contents = bytearray(onnx.read_bytes())
    contents[20] ^= 1
    onnx.write_bytes(contents)
    return folder


def run(models: Path, *argv: str) -> int:
    """Exit code of `amiss models ARGV` on the folder."""
    return main([*argv, "--models", str(models)])


def test_list_shows_good_bundles_and_the_reason_of_refused_ones(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each good bundle has a row with its label, the flipped one a line with the reason."""
    assert run(models, "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["NAME", "VERSION", "LABELS"]
    assert [line.split()[:3] for line in lines[1:4]] == [
        ["image", "1", "-"],
        ["table", "1", "stable"],
        ["table", "2", "-"],
    ]
    assert lines[4].startswith("refused bad@1: ")
    assert "model.onnx" in lines[4]


def test_list_as_json_has_the_same_bundles(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--json gives every bundle once, refused ones by their reason."""
    assert run(models, "list", "--json") == 0
    entries = json.loads(capsys.readouterr().out)
    assert [(e["name"], e["version"], bool(e["reason"])) for e in entries] == [
        ("bad", 1, True),
        ("image", 1, False),
        ("table", 1, False),
        ("table", 2, False),
    ]
    assert [e["alarm_rate"] for e in entries] == [None, 0.05, 0.05, 0.1]


def test_an_empty_folder_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without bundles the list says where it looked and what writes one."""
    assert run(tmp_path, "list") == 0
    assert f"no bundles in {tmp_path}" in capsys.readouterr().out


def test_show_follows_the_stable_label(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`show table` is the version labelled stable; `show table@2` is what it says."""
    assert run(models, "show", "table") == 0
    assert "table@1" in capsys.readouterr().out
    assert run(models, "show", "table@2") == 0
    shown = capsys.readouterr().out
    assert "table@2" in shown
    assert "0.1 (asked, marginal)" in shown


def test_show_as_json_is_the_manifest(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints the manifest with version and labels added."""
    assert run(models, "show", "table", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    manifest = read_bundle(models, "table", 1).manifest.model_dump(mode="json")
    assert (shown.pop("version"), shown.pop("labels")) == (1, ["stable"])
    assert shown == json.loads(json.dumps(manifest))


def test_show_refuses_a_bad_bundle(models: Path) -> None:
    """A bundle whose bytes changed is not described."""
    with pytest.raises(BundleRefused, match=r"model\.onnx"):
        run(models, "show", "bad")


def test_verify_says_one_line_a_bundle_and_fails_on_a_refused_one(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1 with the reason when any bundle is refused, 0 when all asked for are good."""
    assert run(models, "verify") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("bad@1: REFUSED ")
    assert lines[1:] == ["image@1: ok", "table@1: ok", "table@2: ok"]
    assert run(models, "verify", "table") == 0
    assert capsys.readouterr().out == "table@1: ok\ntable@2: ok\n"
    assert run(models, "verify", "table@stable", "--json") == 0
    assert json.loads(capsys.readouterr().out) == [{"name": "table", "version": 1, "reason": ""}]


def test_verify_of_an_unknown_name_is_not_found(models: Path) -> None:
    """A name or version that is not there is an error, not a clean bill."""
    with pytest.raises(BundleNotFound, match="no detector 'nope'"):
        run(models, "verify", "nope")
    with pytest.raises(BundleNotFound, match="no version or label '9'"):
        run(models, "verify", "table@9")


def test_recalibrate_publishes_a_new_version(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next number is taken, the new rate stands in it, and the stale label is pointed out."""
    assert run(models, "recalibrate", "table", "--alarm-rate", "0.2") == 0
    said = capsys.readouterr().out
    assert "table@3: threshold" in said
    assert "'stable' still points at table@1" in said
    manifest = read_bundle(models, "table", 3).manifest
    assert manifest.decision.alarm_rate == 0.2
    assert manifest.provenance.recalibrated_from == 1


def test_recalibrate_refuses_with_the_rows_needed(models: Path) -> None:
    """A rate that 200 calibration scores cannot support names the 9,999 it needs."""
    with pytest.raises(TooFewRows, match="9999 calibration rows, got 200"):
        run(models, "recalibrate", "table", "--alarm-rate", "0.0001")


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["recalibrate", "table"], ["show"]])
def test_wrong_usage_is_bad_input(argv: list[str]) -> None:
    """A missing command, argument or option is bad input that points at the help."""
    with pytest.raises(BadInput, match="see amiss models"):
        main(argv)
