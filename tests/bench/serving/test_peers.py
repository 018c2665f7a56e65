"""The grid of TorchServe, its handlers, and the counters of the metrics pages."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from bench.serving.models import Model, images
from bench.serving.peers import PEERS, amiss, triton
from bench.serving.peers.base import FILES, free_ports, matching
from bench.serving.peers.torchserve import (
    GRID,
    Setting,
    TorchServe,
    TorchServeTorchScript,
    best_settings,
)
from bench.serving.run import Plan

PAGE = """\
amiss_requests_total{code="503",method="other",model="",protocol="http",version=""} 2.0
amiss_requests_total{code="OK",method="ModelInfer",model="digits28",protocol="grpc"} 3035.0
amiss_requests_total{code="CANCELLED",method="ModelInfer",model="digits28",protocol="grpc"} 82.0
amiss_requests_total{code="INTERNAL",method="ModelInfer",model="digits28",protocol="grpc"} 1.0
nv_inference_request_failure{model="digits28",reason="CANCELED",version="1"} 40
nv_inference_request_failure{model="digits28",reason="BACKEND",version="1"} 3
nv_inference_request_failure{model="digits28",reason="OTHER",version="1"} 0
"""


def test_the_grid_is_the_one_promised() -> None:
    """Batch 1, 8, 32, 64, delay 0, 1, 5 ms, workers 1, 2: 24 settings, all different."""
    assert len(set(GRID)) == 4 * 3 * 2


def test_each_kind_of_request_keeps_its_own_best() -> None:
    """The setting that is best for one caller need not be best for many."""
    one, many = Setting(1, 0, 1), Setting(32, 5, 2)
    measured = {"alone": {one: -2.0, many: -9.0}, "many": {one: 300.0, many: 1400.0}}
    assert best_settings(measured) == {"alone": one, "many": many}


class Brightness(nn.Module):
    """Returns what a bundle's graph returns: a score for each image, and a reconstruction."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.float().mean(dim=(1, 2, 3)), x.float()


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_torchscript_answers_each_request_with_its_own_scores(tmp_path: Path) -> None:
    """Requests of one and of three images in one batch come back as one and three scores."""
    torch.jit.script(Brightness()).save(str(tmp_path / "model.pt"))  # type: ignore[no-untyped-call]
    handler = runpy.run_path(str(FILES / TorchServeTorchScript.handler))["Handler"]()
    handler.initialize(
        SimpleNamespace(
            system_properties={"model_dir": str(tmp_path)},
            manifest={"model": {"serializedFile": "model.pt"}},
        )
    )
    asked = [images(1), images(3)]
    answered = handler.handle([{"body": x.tobytes()} for x in asked], None)
    expected = [x.mean(axis=(1, 2, 3)).tolist() for x in asked]
    assert answered == [pytest.approx(each, rel=1e-5) for each in expected]


def test_each_kind_of_torchserve_has_its_own_model_file() -> None:
    """The second differs from the first in the file and the handler, not in how it is tuned."""
    model = Model(Path("models"))
    first, second = TorchServe(), TorchServeTorchScript()
    assert (first.model_file(model).suffix, second.model_file(model).suffix) == (".onnx", ".pt")
    assert type(first).tune is type(second).tune


def test_only_real_failures_count() -> None:
    """Callers that left and probes before readiness are none."""
    (ours,) = matching(PAGE, amiss.FAILED)
    (theirs,) = matching(PAGE, triton.FAILED)
    assert '"INTERNAL"' in ours
    assert '"BACKEND"' in theirs


def test_ports_differ() -> None:
    """Ports asked for together are not given twice."""
    assert len(set(free_ports(20))) == 20


def test_the_busiest_closed_loop_comes_before_its_shares() -> None:
    """An open loop is a share of what the closed loop reached for the same rows."""
    cells = list(Plan(peers=tuple(PEERS)).cells(first_door=True))
    for rows in (1, 32):
        of_rows = [cell for cell in cells if cell.rows == rows]
        assert [cell.load for cell in of_rows] == [None, None, None, 0.5, 0.8]
        assert of_rows[2].in_flight == 64
