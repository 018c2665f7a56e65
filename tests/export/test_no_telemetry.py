"""Nothing that loads a model reports to anybody."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("room", ["amiss_export.parity", "amiss_serving.runtimes"])
def test_onnx_runtime_leaves_no_trace_outside_the_models_folder(room: str, tmp_path: Path) -> None:
    """Loading ONNX Runtime through our rooms writes no identifier and no event store."""
    silenced = (
        "ORT_DISABLE_TELEMETRY",
        "GITHUB_ACTIONS",
        "TF_BUILD",
        "TRAVIS",
        "JENKINS_URL",
        "CI",
    )
    environment = {k: v for k, v in os.environ.items() if k not in silenced}
    places = {"HOME": "home", "TMPDIR": "tmp", "XDG_CACHE_HOME": "cache"}
    for variable, folder in places.items():
        (tmp_path / folder).mkdir()
        environment[variable] = str(tmp_path / folder)
    code = f"import {room}, onnxruntime; onnxruntime.InferenceSession"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    written = [p.name for p in tmp_path.rglob("*") if p.is_file()]
    assert not [name for name in written if "onnxruntime" in name or name == ".ses"]
