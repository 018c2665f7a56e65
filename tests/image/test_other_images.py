"""The images `torchserve` and `train` for the CPU: they hold what they are for, and it runs."""

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from amiss_export.bundle import read_bundle
from bundle_factory import table_scores
from torchscript_bundles import table_with_torchscript

from .conftest import Built, readable
from .container import running
from .contents import compilers, left_behind
from .test_serve_image import ASK, ROWS, TOKEN

pytestmark = [pytest.mark.image_all, pytest.mark.timeout(3600)]  # the first test of each builds


@pytest.mark.parametrize("target", ["torchserve", "train"])
def test_the_build_left_nothing_behind(built: Callable[..., Built], target: str) -> None:
    """Neither image holds a compiler, a cache of pip, a wheel or settings of pip."""
    tree = built(target).tree
    assert (compilers(tree), left_behind(tree)) == ([], [])


@pytest.mark.parametrize("runtime", ["torchserve", "torchscript"])
def test_torch_runs_the_models(built: Callable[..., Built], tmp_path: Path, runtime: str) -> None:
    """With a read-only root and as a random uid, both runtimes answer with the model's scores."""
    image = built("torchserve")
    table_with_torchscript(tmp_path)
    with running(
        image.image,
        image.tree,
        models=readable(tmp_path),
        user=54321,
        env={"AMISS_TOKEN": TOKEN},
        command=["serve", "--runtime", runtime],
    ) as container:
        container.wait_until_healthy()
        seen = json.loads(container.from_outside(sys.executable, ASK, TOKEN))
        np.testing.assert_allclose(
            seen["grpc"], table_scores(np.array(ROWS, np.float32)), rtol=1e-5
        )
        container.signal(signal.SIGTERM)
        assert container.finished() == 0


def test_it_trains(built: Callable[..., Built], tmp_path: Path) -> None:
    """As a random uid, `train` writes a bundle below /work that this checkout finds whole."""
    image = built("train")
    assert image.image.config["WorkingDir"] == "/work"
    assert image.image.config["Cmd"] == ["--help"]
    tmp_path.chmod(0o777)
    with running(
        image.image,
        image.tree,
        work=tmp_path,
        user=54321,
        command=["train", "--recipe", "breast-cancer", "--trainer.max-steps", "50"],
    ) as container:
        assert container.finished(timeout_s=900) == 0
    assert read_bundle(tmp_path / "models", "breast-cancer", 1).version == 1
