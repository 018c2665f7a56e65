"""`amiss models promote` and `rollback`, on disk and against a running service."""

import asyncio
from pathlib import Path

import pytest

from amiss_cli.models import main
from amiss_export.bundle import read_labels, resolve_version
from amiss_export.errors import AmissError, BadInput, BundleNotFound, BundleRefused
from amiss_serving.server import serving
from amiss_serving.settings import Settings
from bundle_factory import write_table_bundle


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """table@1 (stable), table@2, and table@3 with a spoiled graph."""
    for _ in range(3):
        write_table_bundle(tmp_path)
    (tmp_path / "table" / "3" / "model.onnx").write_bytes(b"spoiled")
    (tmp_path / "table" / "labels.json").write_text('{"stable": 1}')
    return tmp_path


def test_on_disk_a_promotion_is_undone_by_a_rollback(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each says in one line what the label means now and meant before."""
    assert main(["promote", "table@2", "canary", "--models", str(models)]) == 0
    assert main(["promote", "table@canary", "stable", "--models", str(models)]) == 0
    assert resolve_version(models, "table") == 2
    assert main(["rollback", "table", "--models", str(models)]) == 0
    assert resolve_version(models, "table") == 1
    assert capsys.readouterr().out.splitlines() == [
        "canary is now table@2 (meant nothing)",
        "stable is now table@2 (was table@1)",
        "stable is now table@1 (was table@2)",
    ]


def test_on_disk_a_bundle_is_checked_before_it_is_promoted(models: Path) -> None:
    """A spoiled version is refused by promote and, when it is where we came from, by rollback."""
    with pytest.raises(BundleRefused, match=r"model\.onnx"):
        main(["promote", "table@3", "stable", "--models", str(models)])
    assert read_labels(models, "table") == {"stable": 1}
    (models / "table" / "labels.json").write_text('{"stable": 1, "previous": 3}')
    with pytest.raises(BundleRefused, match=r"model\.onnx"):
        main(["rollback", "table", "--models", str(models)])
    assert read_labels(models, "table") == {"stable": 1, "previous": 3}


@pytest.mark.parametrize(
    ("argv", "error", "message"),
    [
        (["promote", "table", "stable"], BadInput, "expected NAME@VERSION or NAME@LABEL"),
        (["promote", "table@9", "stable"], BundleNotFound, "no version or label '9'"),
        (["promote", "table@2", "7"], BadInput, "a label must match"),
        (["rollback", "table"], BadInput, "not on record"),
        (["rollback", "none"], BundleNotFound, "no detector 'none'"),
        (["rollback"], BadInput, "NAME"),
    ],
)
def test_what_cannot_be_done_is_said(
    models: Path, argv: list[str], error: type[AmissError], message: str
) -> None:
    """The line names what was expected; labels stay as they were."""
    with pytest.raises(error, match=message):
        main([*argv, "--models", str(models)])
    assert read_labels(models, "table") == {"stable": 1}


async def test_a_running_service_is_asked_to(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --address the service loads, promotes and rolls back; its refusal is the command's."""
    monkeypatch.delenv("AMISS_TOKEN", raising=False)
    ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    settings = Settings(models=str(models), device="cpu", repository_mode="explicit", **ports)  # type: ignore[arg-type]
    async with serving(settings) as at:
        where = ["--address", at.grpc]
        assert await asyncio.to_thread(main, ["promote", "table@2", "stable", *where]) == 0
        assert await asyncio.to_thread(main, ["rollback", "table", *where]) == 0
        with pytest.raises(BundleRefused, match="version 3 was refused"):
            await asyncio.to_thread(main, ["promote", "table@3", "stable", *where])
    assert capsys.readouterr().out.splitlines() == [
        "stable is now table@2 (was table@1)",
        "stable is now table@1 (was table@2)",
    ]
    assert read_labels(models, "table") == {"stable": 1}


def test_a_folder_and_a_service_exclude_each_other() -> None:
    """--models and --address together are wrong usage."""
    with pytest.raises(BadInput, match="not allowed with"):
        main(["rollback", "table", "--models", "m", "--address", "h:1"])
