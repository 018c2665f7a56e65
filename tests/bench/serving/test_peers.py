"""The grid of TorchServe and the counters of the metrics pages."""

from bench.serving.peers import PEERS, amiss, triton
from bench.serving.peers.base import free_ports, matching
from bench.serving.peers.torchserve import GRID, Setting, best_settings
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
