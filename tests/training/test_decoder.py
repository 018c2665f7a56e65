"""The decoder as a file: what the detector decodes, in input units, whoever runs it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from amiss_export.bundle import Column, TableInput
from amiss_export.graph import ImageFeatures, ScoringGraph, TableFeatures
from amiss_export.onnx_runtime import onnxruntime
from amiss_training.decoder import write_decoder
from amiss_training.detectors import CONFIGS, DETECTORS, Vae, VaeConfig

SPEC = TableInput(
    columns=(
        Column(name="speed", kind="number", dtype="float64"),
        Column(name="mode", kind="category", dtype="str", categories=("auto", "manual")),
    )
)


def decoded(path: Path, z: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Every output of the file for the draws z, by name."""
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"z": z}), strict=True))


def draws(n: int, d: int) -> NDArray[np.float32]:
    """(n, d) standard normal draws."""
    return np.random.default_rng(0).standard_normal((n, d), dtype=np.float32)


@pytest.fixture(scope="module")
def table() -> tuple[Vae, TableFeatures]:
    """A VAE as it was born, over speeds around 1,000 and two modes."""
    rng = np.random.default_rng(0)
    rows = np.stack([rng.normal(1_000, 50, 100), rng.integers(2, 4, 100)], axis=1)
    features = TableFeatures(SPEC, rows.astype(np.float32))
    torch.manual_seed(0)
    return Vae(VaeConfig(latent_dim=3), shape=(features.width,), columns=2), features


@pytest.mark.parametrize("name", DETECTORS)
def test_images_are_decoded_on_the_scale_they_come_in(name: str) -> None:
    """Far draws of the prior decode to nearly 0 and nearly 1, not to a tanh's -1 (defect D10)."""
    torch.manual_seed(0)
    detector = DETECTORS[name](CONFIGS[name](), shape=(1, 28, 28), columns=0).eval()
    decoded = detector.sample(30 * torch.randn(64, detector.latent_dim))
    assert 0 <= decoded.min() < 0.05
    assert 0.95 < decoded.max() <= 1


def test_rows_come_out_in_column_units(table: tuple[Vae, TableFeatures], tmp_path: Path) -> None:
    """ONNX Runtime gives what the detector decodes and the features restore, for any n."""
    vae, features = table
    write_decoder({"vae": vae}, features, tmp_path / "decoder.onnx")
    for n in (1, 7):
        z = draws(n, 3)
        rows = decoded(tmp_path / "decoder.onnx", z)["vae"]
        expected = features.restore(vae.sample(torch.from_numpy(z))).numpy()
        np.testing.assert_allclose(rows, expected, rtol=1e-5)
        assert rows.dtype == np.float32
        assert (np.abs(rows[:, 0] - 1_000) < 500).all()
        assert np.isin(rows[:, 1], [2, 3]).all()


def test_a_scoring_graph_in_double_changes_nothing(
    table: tuple[Vae, TableFeatures], tmp_path: Path
) -> None:
    """Writing the decoder after the scoring graph has made the features double gives the same."""
    vae, features = table
    write_decoder({"vae": vae}, features, tmp_path / "before.onnx")
    raw = torch.tensor([[1_000.0, 2.0], [950.0, 3.0], [1_050.0, 2.0]] * 20)
    ScoringGraph(features, vae.fit_readout(features(raw), features(raw)), raw)
    write_decoder({"vae": vae}, features, tmp_path / "after.onnx")
    before, after = (
        decoded(tmp_path / f"{name}.onnx", draws(5, 3))["vae"] for name in ("before", "after")
    )
    np.testing.assert_allclose(before, after, rtol=1e-5)


def test_members_share_the_draws_and_have_an_output_each(tmp_path: Path) -> None:
    """Two detectors of 2 and 5 dimensions take one z of 5; the narrow one its first two."""
    torch.manual_seed(0)
    members = {
        name: Vae(VaeConfig(latent_dim=d), shape=(1, 12, 12), columns=0)
        for name, d in (("narrow", 2), ("wide", 5))
    }
    write_decoder(members, ImageFeatures(), tmp_path / "decoder.onnx")
    z = draws(4, 5)
    images = decoded(tmp_path / "decoder.onnx", z)
    assert list(images) == ["narrow", "wide"]
    for name, vae in members.items():
        expected = ImageFeatures().restore(vae.sample(torch.from_numpy(z[:, : vae.latent_dim])))
        np.testing.assert_allclose(images[name], expected.numpy(), atol=1e-2)
        assert images[name].shape == (4, 1, 12, 12)
        assert 0 <= images[name].min() <= images[name].max() <= 255


def test_the_decoder_runs_in_evaluation_mode(
    table: tuple[Vae, TableFeatures], tmp_path: Path
) -> None:
    """A detector left in training mode, with dropout, writes a file without any randomness."""
    _, features = table
    torch.manual_seed(0)
    vae = Vae(VaeConfig(latent_dim=3), shape=(features.width,), columns=2)
    vae.network.decoder = nn.Sequential(nn.Dropout(0.5), vae.network.decoder)
    vae.train()
    write_decoder({"vae": vae}, features, tmp_path / "decoder.onnx")
    model = onnx.load(tmp_path / "decoder.onnx")
    assert not {"Dropout", "RandomNormal", "RandomUniform", "Bernoulli"} & {
        node.op_type for node in model.graph.node
    }
    z = draws(6, 3)
    first, second = (decoded(tmp_path / "decoder.onnx", z)["vae"] for _ in range(2))
    assert np.array_equal(first, second)
    assert vae.training
