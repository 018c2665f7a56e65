"""Archives with a handler that echoes, and a question to a running TorchServe."""

import importlib.util
import json
import os
import zipfile
from pathlib import Path

import httpx
import pytest

from amiss_serving.torchserve.process import TorchServe

HANDLER = Path(__file__).with_name("echo_handler.py")


def need(*modules: str) -> None:
    """Skip where a module of the extra is not installed, fail where CI lacks it."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing and os.environ.get("CI"):
        pytest.fail(f"CI must have the extra torchserve, {missing} is not installed")
    if missing:
        pytest.skip(f"{missing} of the extra torchserve is not installed")


def write_archive(store: Path, name: str, *, version: str = "1", failure: str = "") -> Path:
    """An archive of the echo handler. failure: what it raises when it loads; empty for nothing."""
    manifest = {
        "createdOn": "01/01/2026 00:00:00",
        "runtime": "python",
        "archiverVersion": "0.12.0",
        "model": {
            "modelName": name,
            "modelVersion": version,
            "serializedFile": "model.pt",
            "handler": HANDLER.name,
        },
    }
    store.mkdir(exist_ok=True)
    path = store / f"{name}.mar"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.writestr("model.pt", failure)
        archive.write(HANDLER, HANDLER.name)
    return path


def ask(server: TorchServe, model: str, command: str, *, timeout_s: float = 10) -> httpx.Response:
    """What TorchServe answers; asked once more when the key was renewed on the way."""
    for _ in range(2):
        headers = {
            "authorization": f"Bearer {server.inference_key()}",
            "content-type": "application/octet-stream",
        }
        url = f"http://{server.http_address}/predictions/{model}"
        answer = httpx.post(url, content=command, headers=headers, timeout=timeout_s)
        if "InvalidKeyException" not in answer.text:
            break
    return answer
