"""Exported files answer like the detector, and a difference stops the export."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from amiss_export.errors import ParityFailed
from amiss_export.graph import ScoringGraph, TableFeatures, Whitener
from amiss_export.parity import check_parity, onnx_reconstruction, onnx_scores
from amiss_export.to_onnx import write_onnx
from amiss_export.to_torchscript import load_torchscript, write_torchscript
from small_graph import TABLE, Distance, rows


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[ScoringGraph, Path, Path]:
    folder = tmp_path_factory.mktemp("exported")
    x = rows()
    graph = ScoringGraph(TableFeatures(TABLE, x), Distance(), torch.from_numpy(x))
    write_onnx(graph, torch.from_numpy(x[:2]), folder / "model.onnx")
    write_torchscript(graph, torch.from_numpy(x[:2]), folder / "model.pt")
    return graph, folder / "model.onnx", folder / "model.pt"


def test_both_files_agree_with_the_detector(exported: tuple[ScoringGraph, Path, Path]) -> None:
    """On at least 1,000 rows both runtimes stay within 1e-5 of the scale."""
    graph, onnx_file, script = exported
    parity = check_parity(graph, onnx=onnx_file, torchscript=script, x=rows(400), scale=1.0)
    assert parity.rows >= 1_000
    assert max(parity.onnx, parity.torchscript) <= parity.tolerance == 1e-5


def test_a_difference_stops_the_export(exported: tuple[ScoringGraph, Path, Path]) -> None:
    """When the detector computes anything else than the file, ParityFailed names the runtime."""
    graph, onnx_file, script = exported
    graph.scale.median += 0.01
    try:
        with pytest.raises(ParityFailed, match="onnx scores differ"):
            check_parity(graph, onnx=onnx_file, torchscript=script, x=rows(), scale=1.0)
    finally:
        graph.scale.median -= 0.01


def test_the_onnx_file_stands_alone(exported: tuple[ScoringGraph, Path, Path]) -> None:
    """One file, no external data, a free number of rows, the agreed names."""
    _, path, _ = exported
    assert [p.name for p in path.parent.glob("*.onnx*")] == ["model.onnx"]
    model = onnx.load(path, load_external_data=False)
    assert all(t.data_location == onnx.TensorProto.DEFAULT for t in model.graph.initializer)
    (x,) = model.graph.input
    assert x.name == "x"
    assert x.type.tensor_type.shape.dim[0].dim_param
    assert [o.name for o in model.graph.output] == ["score", "reconstruction"]


def test_neighbours_do_not_change_a_score(exported: tuple[ScoringGraph, Path, Path]) -> None:
    """A row scores the same alone and in a batch, within 1e-6."""
    _, path, _ = exported
    x = rows(300)
    alone = np.concatenate([onnx_scores(path, x[i : i + 1]) for i in range(20)])
    assert np.abs(alone - onnx_scores(path, x)[:20]).max() <= 1e-6


def test_reconstruction_is_in_the_inputs_unit(exported: tuple[ScoringGraph, Path, Path]) -> None:
    """ONNX Runtime's reconstruction is the eager one."""
    graph, path, _ = exported
    x = rows(50)
    expected = graph(torch.from_numpy(x))[1].numpy()
    assert np.allclose(onnx_reconstruction(path, x), expected, rtol=1e-5)


def test_torchscript_loads_without_the_classes(exported: tuple[ScoringGraph, Path, Path]) -> None:
    """The TorchScript file scores rows when loaded by path alone, any number of them."""
    graph, _, script = exported
    x = torch.from_numpy(rows(7))
    assert torch.allclose(load_torchscript(script)(x)[0], graph(x)[0])


def test_thousands_of_squares_add_up_alike(tmp_path: Path) -> None:
    """The length of vectors of 40,000 dimensions agrees with the runtime's to 1e-6 of itself."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 40_000)).astype(np.float32)
    graph = Length(Whitener(x, blocks=[40_000], components=8)).eval()
    write_onnx(graph, torch.from_numpy(x[:2]), tmp_path / "length.onnx")
    fresh = rng.normal(size=(20, 40_000)).astype(np.float32)
    eager = graph(torch.from_numpy(fresh))[0].numpy()
    assert onnx_scores(tmp_path / "length.onnx", fresh) == pytest.approx(eager, rel=1e-6)


class Length(nn.Module):
    """A whitener as a graph of its own."""

    def __init__(self, whitener: Whitener) -> None:
        super().__init__()
        self.whitener = whitener

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.whitener(x), x
