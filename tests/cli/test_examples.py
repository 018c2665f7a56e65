"""The lines that `amiss serve --show-examples` prints, pasted into a shell."""

import asyncio
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amiss_cli.examples import examples
from amiss_serving.server import Addresses, serving
from amiss_serving.settings import Settings
from bundle_factory import write_image_bundle, write_table_bundle

TOKEN = "correct-horse"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A service on free ports; the models folder has a blank in its name, each bundle a row."""
    models = tmp_path / "my models"
    write_table_bundle(models)
    write_image_bundle(models)
    for name in ("table", "image"):
        (models / name / "1" / "report" / "examples").mkdir(parents=True)
    record = {"records": [{"x0": 99.0, "x1": 1.0, "x2": 2.0}]}
    example(models, "table", "json").write_text(json.dumps(record))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(example(models, "image", "png"))
    return Settings(models=str(models), device="cpu", http_port=0, grpc_port=0, metrics_port=0)


def example(models: Path, name: str, suffix: str) -> Path:
    return models / name / "1" / "report" / "examples" / f"most_anomalous_0.{suffix}"


async def paste(text: str, token: str | None = None) -> str:
    """What a shell prints for the text, AMISS_TOKEN set to the token or not at all."""
    environment = {key: value for key, value in os.environ.items() if key != "AMISS_TOKEN"}
    if token:
        environment["AMISS_TOKEN"] = token
    text = text.replace("Ask it, in another terminal", "# ")
    command = ["bash", "-euc", text]
    result = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


async def test_unix_sockets_are_asked_as_pasted(settings: Settings, tmp_path: Path) -> None:
    """With sockets in the place of ports the printed lines get the same verdicts."""
    sockets = {"http_socket": str(tmp_path / "h t.sock"), "grpc_socket": str(tmp_path / "g.sock")}
    async with serving(replace(settings, **sockets)) as at:
        answered = await paste(examples(settings, at))
    assert answered.count('"is_anomaly":') == 2
    assert "Verdict(" in answered


async def test_the_lines_are_answered_as_pasted(settings: Settings) -> None:
    """One curl line per detector and a snippet of five lines of Python, each with a verdict."""
    async with serving(settings) as at:
        printed = examples(settings, at)
        answered = await paste(printed)
    assert printed.count("curl ") == 2
    assert len(printed.split("<<'END'\n")[1].split("\nEND")[0].splitlines()) <= 5
    assert answered.count('"is_anomaly":true') == 2
    assert "Verdict(score=0.25" in answered


async def test_the_lines_work_behind_a_token_and_do_not_hold_it(
    settings: Settings, tmp_path: Path
) -> None:
    """With AMISS_TOKEN set as the text says, or read from the token file, all are answered."""
    closed = replace(settings, token=TOKEN)
    async with serving(closed) as at:
        printed = examples(closed, at)
        assert "AMISS_TOKEN must be set" in printed
        assert (await paste(printed, TOKEN)).count('"is_anomaly":true') == 2
    secret = tmp_path / "a token"
    secret.write_text(TOKEN + "\n")
    by_file = replace(settings, token_file=str(secret))
    async with serving(by_file) as at:
        from_file = examples(by_file, at)
        assert (await paste(from_file)).count('"is_anomaly":true') == 2
    assert TOKEN not in printed + from_file


async def test_a_detector_that_is_not_served_is_not_shown(settings: Settings) -> None:
    """A corrupt bundle and unreadable labels leave the other's lines, and the service up."""
    graph = Path(settings.models) / "image" / "1" / "model.onnx"
    graph.write_bytes(graph.read_bytes() + b"x")
    async with serving(settings) as at:
        printed = examples(settings, at)
        assert "Verdict(" in await paste(printed)
    assert "image" not in printed
    (Path(settings.models) / "table" / "labels.json").write_text("[")
    async with serving(settings) as at:
        assert "no example rows" in examples(settings, at)


def test_a_table_alone_is_asked_in_python_too(settings: Settings) -> None:
    """Without an image detector the snippet reads the table's rows."""
    at = Addresses("h:1", "g:2", "m:3", detectors=("table@1",))
    printed = examples(settings, at)
    assert "import json" in printed
    assert 'score_table("table"' in printed
