"""Which bundles `amiss torchserve` runs. The whole is in tests/cli/test_torchserve."""

import json
from pathlib import Path

import pytest

from amiss_export.errors import BadInput
from amiss_serving.torchserve.serve import default_bundles
from bundle_factory import write_image_bundle, write_table_bundle


def test_the_stable_version_is_run_and_else_the_newest(tmp_path: Path) -> None:
    """As the bare name means it everywhere: the label counts, then the number."""
    for seed in range(3):
        write_table_bundle(tmp_path, "labelled", seed=seed)
        write_table_bundle(tmp_path, "plain", seed=seed)
    (tmp_path / "labelled" / "labels.json").write_text(json.dumps({"stable": 2, "canary": 3}))
    versions = {name: bundle.version for name, bundle in default_bundles(tmp_path).items()}
    assert versions == {"labelled": 2, "plain": 3}


def test_a_refused_bundle_leaves_the_others_running(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left out, and the log says which and why."""
    write_table_bundle(tmp_path)
    version = write_image_bundle(tmp_path)
    (tmp_path / "image" / str(version) / "model.onnx").write_bytes(b"altered")
    assert list(default_bundles(tmp_path)) == ["table"]
    (record,) = [record for record in caplog.records if record.message == "bundle refused"]
    assert record.__dict__["fields"]["detector"] == "image"


def test_a_folder_without_bundles_is_refused(tmp_path: Path) -> None:
    """TorchServe without a model would serve nothing, and say it is healthy."""
    with pytest.raises(BadInput, match=r"no detector in .* can be served"):
        default_bundles(tmp_path / "nowhere")
