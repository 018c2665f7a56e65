"""The adversarial autoencoder's mechanism: its losses, who learns when, its read-outs."""

import copy
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy
from torch.utils.data import DataLoader

from amiss_export.bundle import Column, TableInput
from amiss_export.errors import BadInput
from amiss_export.graph import ImageFeatures, ScoringGraph, TableFeatures
from amiss_export.onnx_runtime import onnxruntime
from amiss_export.to_onnx import write_onnx
from amiss_export.to_torchscript import load_torchscript, write_torchscript
from amiss_training.detectors.aae import Aae, AaeConfig, AaeNetwork
from amiss_training.detectors.similarity import psnr, ssim
from amiss_training.errors import TrainingDiverged

pytestmark = [
    # Lightning's hints about data loaders and a deprecation inside it; none concerns short runs.
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
    pytest.mark.filterwarnings("ignore:.*does not have a `val_dataloader`.*"),
    pytest.mark.filterwarnings("ignore:.*You defined a `validation_step`.*"),
]
TABLE_READOUTS = Aae.readout_names
IMAGE_READOUTS = (*Aae.readout_names, "ssim", "whitened_local", "critic_features")


def normals(n: int = 600, d: int = 8, *, seed: int = 0) -> Tensor:
    """(n, d) rows on a plane of three dimensions with a little noise, standardised."""
    generator = torch.Generator().manual_seed(seed)
    plane = torch.randn(3, d, generator=torch.Generator().manual_seed(99))
    x = torch.randn(n, 3, generator=generator) @ plane
    return (x + 0.1 * torch.randn(n, d, generator=generator)) / 1.7


def bars(n: int = 256, side: int = 16, *, seed: int = 0) -> Tensor:
    """(n, 1, side, side) images 0..1 of one bar, its place, width and brightness its own."""
    generator = torch.Generator().manual_seed(seed)
    brightness = 0.5 + 0.4 * torch.rand(n, 1, 1, 1, generator=generator)
    start = torch.randint(2, side - 6, (n, 1), generator=generator)
    width = torch.randint(2, 5, (n, 1), generator=generator)
    columns = torch.arange(side)
    bar = ((columns >= start) & (columns < start + width)).float()
    images = bar[:, None, None, :].expand(n, 1, side, side) * brightness
    return images + 0.05 * torch.rand(n, 1, side, side, generator=generator)


def new(x: Tensor, **config: Any) -> Aae:
    """An untrained detector of x, from a fixed seed."""
    torch.manual_seed(0)
    if x.ndim == 4:
        config = {"hidden": (4, 8, 16), "latent_dim": 4} | config
    return Aae(AaeConfig(**config), shape=x.shape[1:], columns=x.shape[1])


def trained(x: Tensor, *, epochs: int = 8, **config: Any) -> Aae:
    """A detector after a short run."""
    aae = new(x, **config)
    run(aae, x, max_epochs=epochs)
    return aae.eval()


def run(aae: Aae, x: Tensor, **arguments: Any) -> Trainer:
    trainer = quiet_trainer(**arguments)
    trainer.fit(aae, DataLoader(x, 64, shuffle=True))  # type: ignore[arg-type]  # a tensor will do
    return trainer


def quiet_trainer(**arguments: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **arguments,
    )


class Calls:
    """What a module was given, and whether it was training then."""

    def __init__(self, module: nn.Module) -> None:
        self.inputs: list[Tensor] = []
        self.training: list[bool] = []
        module.register_forward_hook(self._note)

    def _note(self, module: nn.Module, given: tuple[Tensor], result: Tensor) -> None:
        self.inputs.append(given[0].detach())
        self.training.append(module.training)


class TestLosses:
    """Each term against a formula of its own."""

    def test_reconstruction_terms_are_sums_over_features(self) -> None:
        """l1 and l2 of rows add absolute and squared differences; nothing is averaged but rows."""
        network = AaeNetwork((5,), widths=(8,), latent_dim=2)
        x, output = torch.randn(2, 9, 5)
        found = {k: network.reconstruction_loss(x, output, kind=k) for k in ("l1", "l2")}
        assert torch.allclose(found["l1"], (x - output).abs().sum(dim=1))
        assert torch.allclose(found["l2"], (x - output).square().sum(dim=1))

    def test_image_terms_see_the_image_that_comes_out(self) -> None:
        """bce is torch's on the decoded pixels; l2 and ssim compare those, not the logits."""
        network = AaeNetwork((1, 16, 16), widths=(4, 8), latent_dim=2)
        x, logits = torch.rand(3, 1, 16, 16), torch.randn(3, 1, 16, 16)
        made = torch.sigmoid(logits)
        expected = {
            "bce": binary_cross_entropy(made, x, reduction="none").flatten(1).sum(dim=1),
            "l2": (x - made).square().flatten(1).sum(dim=1),
            "ssim": 256 * (1 - ssim(x, made)),
        }
        for kind, wanted in expected.items():
            found = network.reconstruction_loss(x, logits, kind=kind)  # type: ignore[arg-type]  # literals in a loop
            assert torch.allclose(found, wanted, rtol=1e-4), kind

    def test_psnr_is_scikit_images(self) -> None:
        """Decibels of images 0..1, one image at a time."""
        x, other = torch.rand(2, 4, 3, 9, 9)
        pairs = zip(x.numpy(), other.numpy(), strict=True)
        theirs = [peak_signal_noise_ratio(a, b, data_range=1.0) for a, b in pairs]  # type: ignore[no-untyped-call]  # scikit-image has none
        assert psnr(x, other).tolist() == pytest.approx(theirs, rel=1e-5)

    def test_each_term_has_its_weight(self) -> None:
        """The network's loss is the reconstruction and both critics' terms, weighted."""
        aae = new(bars(4), image_critic="bce", reconstruction_weight=2.0, adversarial_weight=3.0)
        terms = {"reconstruction": 5.0, "latent_adversarial": 0.5, "image_adversarial": 0.25}
        loss = aae.weighted({name: torch.tensor(value) for name, value in terms.items()})
        assert float(loss) == 2.0 * 5.0 + 3.0 * 0.5 + 3.0 * 0.25

    def test_noise_is_for_training_alone(self) -> None:
        """Noise on the code moves the training loss; the validation loss has none."""
        x = normals(64)
        clean, noisy = new(x, code_noise=0.0), new(x, code_noise=2.0)
        code = clean.encode(x)
        terms = [aae.network_losses(x, code)["reconstruction"] for aae in (clean, noisy)]
        exact = (x - clean.reconstruct(x)).square().sum(dim=1).mean()
        assert torch.allclose(terms[0], exact)
        assert not torch.allclose(terms[1], exact, rtol=0.01)
        for aae in (clean, noisy):
            aae.validation_step(x, 0)
            assert float(aae.take_means("val")["val_loss"]) == pytest.approx(float(exact))

    def test_the_latent_critic_sees_draws_and_codes(self) -> None:
        """It is given (n, latent_dim) draws of N(0, 1) as real, and the codes as made."""
        x = bars(64)
        aae = new(x)
        calls = Calls(aae.critics["latent"])
        code = aae.encode(x)
        aae.critic_losses(x, code)
        real, made = calls.inputs
        assert torch.equal(made, code)
        assert real.shape == code.shape == (64, 4)
        assert abs(float(real.mean())) < 0.25
        assert float(real.std()) == pytest.approx(1.0, abs=0.2)

    def test_the_image_critic_sees_images_and_decoded_draws(self) -> None:
        """It is given x as real; what is made comes from the prior, not from the codes of x."""
        x = bars(8)
        aae = new(x, image_critic="bce")
        calls = Calls(aae.critics["image"])
        aae.critic_losses(x, aae.encode(x))
        real, made = calls.inputs
        assert torch.equal(real, x)
        assert made.shape == x.shape
        assert not torch.allclose(made, aae.reconstruct(x))

    def test_learning_critics_leave_the_network_alone(self) -> None:
        """No gradient of a critic's loss reaches the decoder that made its images."""
        x = bars(8)
        aae = new(x, image_critic="wgan_gp")
        losses = aae.critic_losses(x, aae.encode(x))
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]  # torch
        assert all(p.grad is None for p in aae.network.parameters())
        assert any(p.grad is not None for p in aae.critics["image"].parameters())


class TestTraining:
    """What short runs on the CPU show."""

    def test_a_batch_counts_as_one_step(self) -> None:
        """Two optimizers step in every batch; max_steps means batches."""
        aae = new(normals())
        trainer = run(aae, normals(), max_steps=15)
        assert trainer.global_step == 15
        rates = [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers]
        assert rates == pytest.approx([1e-5, 1e-5])  # the end of the cosine

    @pytest.mark.parametrize(("kind", "steps_against"), [("bce", 11), ("wgan_gp", 3)])
    def test_a_wasserstein_critic_steps_five_times_as_often(
        self, kind: str, steps_against: int
    ) -> None:
        """In 11 batches the critics learn 11 times; the network steps against them at 0, 5, 10."""
        x = bars(11 * 64)
        aae = new(x, latent_critic=kind, image_critic=kind)
        terms: list[set[str]] = []
        network_losses, critic_losses = aae.network_losses, aae.critic_losses

        def spied(x: Tensor, code: Tensor) -> dict[str, Tensor]:
            terms.append(set(network_losses(x, code)))
            return network_losses(x, code)

        def spied_too(x: Tensor, code: Tensor) -> dict[str, Tensor]:
            terms.append(set(critic_losses(x, code)))
            return critic_losses(x, code)

        aae.network_losses, aae.critic_losses = spied, spied_too  # type: ignore[method-assign]  # the seam of a spy
        run(aae, x, max_steps=11)
        assert sum({"latent_critic", "image_critic"} == names for names in terms) == 11
        against = [names for names in terms if "latent_adversarial" in names]
        assert len(against) == steps_against
        assert all("image_adversarial" in names for names in against)

    def test_critics_learn_in_training_mode_and_judge_in_evaluation_mode(self) -> None:
        """Spectral norms are refreshed while a critic learns, and stand still while it judges."""
        x = normals(128)
        aae = new(x)
        calls = Calls(aae.critics["latent"])
        run(aae, x, max_steps=2)
        assert calls.training == [True, True, False] * 2
        assert all(p.requires_grad for p in aae.critics.parameters())

    def test_codes_come_to_look_like_the_prior(self) -> None:
        """The critic brings the codes' covariance near the identity; without its pull it is not."""
        x = normals(1_000)
        far = {}
        for weight in (0.0, 3.0):
            rates = {"learning_rate": 3e-3, "critic_learning_rate": 3e-3}
            aae = trained(x, epochs=12, latent_dim=3, adversarial_weight=weight, **rates)
            code = aae.encode(x)
            far[weight] = float((code.T.cov() - torch.eye(3)).norm() + code.mean(dim=0).norm())
        assert far[3.0] < 1.0
        assert far[0.0] > 3.0

    @pytest.mark.parametrize("kind", ["l1", "l2", "ssim", "bce"])
    def test_reconstruction_improves(self, kind: str) -> None:
        """Forty steps on bars bring down the distance that the reconstruction minimises."""
        x = bars()
        before = new(x, reconstruction=kind)
        after = trained(x, epochs=10, reconstruction=kind, learning_rate=1e-2)
        far = []
        for aae in (before, after):
            aae.validation_step(x, 0)
            far.append(float(aae.take_means("val")["val_loss"]))
        assert far[1] < 0.85 * far[0]

    def test_the_same_seed_gives_the_same_weights(self) -> None:
        """Two runs with both critics agree to the bit."""
        x = bars(128)
        first, second = (trained(x, epochs=2, image_critic="wgan_gp") for _ in range(2))
        pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)

    def test_the_quality_of_images_is_noted(self) -> None:
        """Validation notes loss, PSNR and SSIM of clean reconstructions; rows have no SSIM."""
        x, rows = bars(64), normals(64)
        of_images, of_rows = new(x), new(rows)
        of_images.validation_step(x, 0)
        of_rows.validation_step(rows, 0)
        found = {name: float(value) for name, value in of_images.take_means("val").items()}
        assert set(found) == {"val_loss", "val_psnr", "val_ssim"}
        expected = of_images.reconstruct(x)
        assert found["val_psnr"] == pytest.approx(float(psnr(x, expected).mean()), rel=1e-5)
        assert found["val_ssim"] == pytest.approx(float(ssim(x, expected).mean()), rel=1e-4)
        assert set(of_rows.take_means("val")) == {"val_loss"}

    def test_a_loss_that_is_no_number_says_what_to_change(self) -> None:
        """NaN in training raises TrainingDiverged, naming the settings to lower."""
        x = normals(64)
        x[0, 0] = math.nan
        with pytest.raises(TrainingDiverged, match=r"lower aae\.learning_rate .*0\.001"):
            trained(x, epochs=1)


class TestReadouts:
    """Deterministic, the right way up, the same in every runtime."""

    # The latent critic alone is not asked: its verdict inverts on some tables.
    @pytest.mark.parametrize("name", [n for n in TABLE_READOUTS if n != "latent_critic"])
    def test_broken_rows_score_above_normal_ones(self, name: str, aae: Aae) -> None:
        """Rows off the plane and far out score above nearly all fresh normals (D2)."""
        read = aae.fit_readout(normals(), normals(200, seed=2), name=name)
        fresh = normals(200, seed=1)
        noise = torch.randn(200, 8, generator=torch.Generator().manual_seed(5))
        broken = 2.0 * fresh + 3.0 * noise
        with torch.no_grad():
            usual, planted = read(fresh)[0], read(broken)[0]
            assert torch.equal(usual, read(fresh)[0])
        assert float((planted[:, None] > usual[None, :]).float().mean()) > 0.9

    def test_scoring_draws_nothing_and_leaves_the_detector_as_it_was(self, aae: Aae) -> None:
        """Fitted twice, with other random numbers between, a read-out gives the same scores."""
        x, before = normals(100, seed=3), {k: v.clone() for k, v in aae.state_dict().items()}
        values = []
        for _ in range(2):
            torch.randn(7)
            values.append(aae.fit_readout(normals(), x)(x)[0])
        assert torch.equal(*values)
        assert all(torch.equal(v, before[k]) for k, v in aae.state_dict().items())

    def test_own_readouts_equal_their_formulas(self) -> None:
        """Critic features, latent critic and latent prior, from the detector's own networks."""
        x = bars(32)
        aae = trained(x, epochs=2, image_critic="bce")
        found = {
            name: aae.fit_readout(x, x, name=name)(x)[0].float()
            for name in ("critic_features", "latent_critic", "latent_prior")
        }
        image, latent = (cast("Any", aae.critics[name]) for name in ("image", "latent"))
        with torch.no_grad():
            code, other = aae.encode(x), aae.reconstruct(x)
            gap = image.features(x) - image.features(other)
            expected = {
                "critic_features": gap.square().mean(dim=1),
                "latent_critic": -torch.sigmoid(latent(code)).log()[:, 0],
                "latent_prior": 0.5 * code.square().sum(dim=1),
            }
        for name, wanted in expected.items():
            assert torch.allclose(found[name], wanted, rtol=1e-4), name

    def test_all_readouts_are_named(self) -> None:
        """A table offers seven; images add SSIM, and an image critic its features."""
        assert new(normals(8)).readout_names == TABLE_READOUTS
        assert new(bars(8)).readout_names == (*TABLE_READOUTS, "ssim", "whitened_local")
        assert new(bars(8), image_critic="bce").readout_names == IMAGE_READOUTS

    def test_rows_score_the_same_in_every_runtime(
        self, features: TableFeatures, features_aae: Aae, tmp_path: Path
    ) -> None:
        """ONNX Runtime and TorchScript agree with torch on each read-out, within 1e-5 of scale."""
        rows = normals(400, seed=4)
        exported = Readouts(features_aae, features, rows, names=("latent_critic", "blend"))
        assert not exported.differing(rows, tmp_path)

    def test_images_score_the_same_in_every_runtime(self, bars_aae: Aae, tmp_path: Path) -> None:
        """So do images, the critic's features and layer norms included."""
        pixels = (bars(300, seed=4) * 255).round().to(torch.uint8)
        names = ("latent_critic", "critic_features", "ssim", "blend")
        exported = Readouts(bars_aae, ImageFeatures(), pixels, names=names)
        assert not exported.differing(pixels, tmp_path)


class Readouts(nn.Module):
    """The scores of several read-outs, exported in one go; a blend holds the rest as its parts."""

    def __init__(
        self,
        aae: Aae,
        features: ImageFeatures | TableFeatures,
        raw: Tensor,
        *,
        names: tuple[str, ...],
    ) -> None:
        super().__init__()
        self.names = names
        x = features(raw)
        train, early_stop = x[:-100], x[-100:]
        self.graphs = nn.ModuleList(
            ScoringGraph(
                copy.deepcopy(features), aae.fit_readout(train, early_stop, name=name), raw[-100:]
            )
            for name in self.names
        )
        self.eval()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(graph(x)[0] for graph in self.graphs)

    def differing(self, x: Tensor, folder: Path) -> dict[str, float]:
        """Read-outs whose runtimes are further apart than 1e-5 of their scale, and how far."""
        write_onnx(self, x[:2], folder / "model.onnx", output_names=self.names)
        write_torchscript(self, x[:2], folder / "model.pt")
        session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
        )
        with torch.no_grad():
            ours = torch.stack(self(x)).numpy()
            script = torch.stack(load_torchscript(folder / "model.pt")(x)).numpy()
        onnx = np.stack(session.run(self.names, {"x": x.numpy()}))
        low, high = np.quantile(ours, [0.25, 0.75], axis=1)
        far = np.maximum(np.abs(onnx - ours), np.abs(script - ours)).max(axis=1) / (high - low)
        return {name: d for name, d in zip(self.names, far.tolist(), strict=True) if d > 1e-5}


@pytest.fixture(scope="module")
def aae() -> Aae:
    """A detector trained on rows for a moment."""
    return trained(normals(), epochs=12)


@pytest.fixture(scope="module")
def features() -> TableFeatures:
    """Features of rows, with the column that counts what training never showed."""
    columns = tuple(Column(name=f"c{i}", kind="number", dtype="float32") for i in range(8))
    return TableFeatures(TableInput(columns=columns), normals().numpy())


@pytest.fixture(scope="module")
def features_aae(features: TableFeatures) -> Aae:
    """A detector trained on those for a moment."""
    return trained(features(normals()), epochs=4)


@pytest.fixture(scope="module")
def bars_aae() -> Aae:
    """A detector trained on images for a moment, with both critics."""
    critics = {"image_critic": "wgan_gp", "latent_critic": "wgan_gp"}
    return trained(bars(), epochs=30, learning_rate=1e-2, **critics)


class TestConfig:
    """What is left open is settled; what cannot work is refused."""

    def test_defaults_fit_rows_and_images(self) -> None:
        """With hidden unset both kinds build, and give back the shape they had (D19)."""
        for shape in ((6,), (1, 28, 28), (3, 33, 40)):
            aae = Aae(AaeConfig(), shape=shape, columns=shape[0])
            x = torch.rand(2, *shape)
            assert aae.reconstruct(x).shape == x.shape
            assert aae.encode(x).shape == (2, aae.latent_dim)
            assert aae.sample(torch.randn(2, aae.latent_dim)).shape == x.shape

    def test_widths_are_read_not_reversed_in_place(self) -> None:
        """Two detectors of one list of widths are alike, and the list is as it was (D18)."""
        widths = [4, 8, 16]
        x = bars(4)
        first, second = (new(x, hidden=widths, image_critic="bce") for _ in range(2))
        assert widths == [4, 8, 16]
        for name, value in first.state_dict().items():
            assert value.shape == second.state_dict()[name].shape

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"latent_dim": 0}, r"'aae\.latent_dim' must be >= 1, got 0"),
            ({"hidden": ()}, r"'aae\.hidden' must be >= 1, got 0"),
            ({"hidden": (8, 0)}, r"'aae\.hidden' must be >= 1, got 0"),
            ({"critic_steps": 0}, r"'aae\.critic_steps' must be >= 1, got 0"),
            ({"adversarial_weight": -1.0}, r"'aae\.adversarial_weight' must be >= 0, got -1"),
            ({"critic_beta1": 1.5}, r"'aae\.critic_beta1' must be within 0\.\.0\.9999, got 1\.5"),
            ({"learning_rate": math.nan}, r"'aae\.learning_rate' must be >= 0, got nan"),
            ({"reconstruction": "bce"}, r"'aae\.reconstruction' bce is for images; take l1 or l2"),
            ({"image_critic": "bce"}, r"'aae\.image_critic' bce is for images; take none"),
            ({"readout": "ssim"}, r"'aae\.readout' ssim is for images"),
            ({"complexity": "variation"}, r"'aae\.complexity' variation is for images; take none"),
            ({"readout": "critic_features"}, r"needs an image critic; set aae\.image_critic"),
        ],
    )
    def test_a_setting_that_cannot_work_is_refused(
        self, wrong: dict[str, Any], message: str
    ) -> None:
        """Each is named with its value before a network is built."""
        with pytest.raises(BadInput, match=message):
            Aae(AaeConfig(**wrong), shape=(6,), columns=6)
