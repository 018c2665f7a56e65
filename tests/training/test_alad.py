"""ALAD's mechanism: who sees which pairs, what each learns from, what is kept, its scores."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from amiss_export.bundle import Column, TableInput
from amiss_export.errors import BadInput
from amiss_export.graph import ImageFeatures, ScoringGraph, TableFeatures
from amiss_export.parity import check_parity
from amiss_export.to_onnx import write_onnx
from amiss_export.to_torchscript import write_torchscript
from amiss_training.averaging import Averaging
from amiss_training.batches import TrainingBatches, ValidationBatches
from amiss_training.detectors.alad import Alad, AladConfig, cross_entropy, norm, surprise
from amiss_training.errors import TrainingDiverged
from amiss_training.fit import FitConfig, Fitted, fit

# A deprecation inside Lightning, where a test drives it without our loop.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
READOUTS = Alad.readout_names
SHAPES = ((8,), (1, 17, 20))


def normals(n: int = 600, d: int = 8, *, seed: int = 0) -> Tensor:
    """(n, d) rows on a plane of three dimensions with a little noise, standardised."""
    generator = torch.Generator().manual_seed(seed)
    plane = torch.randn(3, d, generator=torch.Generator().manual_seed(99))
    x = torch.randn(n, 3, generator=generator) @ plane
    return (x + 0.1 * torch.randn(n, d, generator=generator)) / 1.7


def bars(n: int = 200, side: int = 12, *, seed: int = 0) -> Tensor:
    """(n, 1, side, side) images 0..1 of one upright bar, each with a place and noise of its own."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(1, side - 4, (n, 1), generator=generator)
    columns = torch.arange(side)
    bar = ((columns >= start) & (columns < start + 3)).float()
    images = bar[:, None, None, :].expand(n, 1, side, side) * 0.7
    noise = 0.05 + 0.2 * torch.rand(n, 1, 1, 1, generator=generator)
    return images + noise * torch.rand(n, 1, side, side, generator=generator)


def new(shape: tuple[int, ...] = (8,), **config: Any) -> Alad:
    """An untrained detector from a fixed seed."""
    torch.manual_seed(0)
    small = {"hidden": (16, 8) if len(shape) == 1 else (4, 8, 16), "latent_dim": 3}
    return Alad(AladConfig(**(small | config)), shape=shape, columns=shape[0])


def fitted(
    x: Tensor,
    folder: Path,
    *,
    epochs: int = 4,
    seed: int = 0,
    fit_config: FitConfig | None = None,
    trainer: dict[str, Any] | None = None,
    **config: Any,
) -> tuple[Alad, Fitted]:
    """A detector after a run of the real training loop, and what happened in it."""
    alad = new(tuple(x.shape[1:]), **config)
    kept = len(x) * 4 // 5
    happened = fit(
        alad,
        train=x[:kept],
        early_stop=x[kept:],
        config=fit_config or FitConfig(batch_size=64, min_steps_per_epoch=20, log="none"),
        trainer={"max_epochs": epochs, "accelerator": "cpu", "enable_progress_bar": False}
        | (trainer or {}),
        run_dir=folder,
        fingerprint="same",
        seed=seed,
    )
    return alad.eval(), happened


@pytest.fixture(scope="module")
def run_on_rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Alad, Fitted]:
    """A detector trained on rows for a moment, and what happened."""
    return fitted(normals(), tmp_path_factory.mktemp("rows"), epochs=12, learning_rate=1e-3)


@pytest.fixture(scope="module")
def alad(run_on_rows: tuple[Alad, Fitted]) -> Alad:
    """The detector of that run."""
    return run_on_rows[0]


@pytest.fixture(scope="module")
def bars_alad(tmp_path_factory: pytest.TempPathFactory) -> Alad:
    """A detector trained on images for a moment."""
    return fitted(bars(), tmp_path_factory.mktemp("bars"), epochs=5, learning_rate=1e-3)[0]


class Calls:
    """The pairs that a discriminator was given."""

    def __init__(self, module: nn.Module) -> None:
        self.pairs: list[tuple[Tensor, Tensor]] = []
        module.register_forward_hook(self._note)

    def _note(self, module: nn.Module, given: tuple[Tensor, Tensor], result: Tensor) -> None:
        self.pairs.append((given[0].detach(), given[1].detach()))


def batch_of(shape: tuple[int, ...], n: int = 9) -> tuple[Tensor, Tensor]:
    """Features within 0..1 and draws of the prior."""
    generator = torch.Generator().manual_seed(7)
    return torch.rand(n, *shape, generator=generator), torch.randn(n, 3, generator=generator)


def b(logits: Tensor, label: float) -> Tensor:
    """Sigmoid cross-entropy by torch."""
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


class TestObjective:
    """The losses of the paper, each written out once more."""

    def test_cross_entropy_is_torchs_and_survives_wild_logits(self) -> None:
        """Both labels agree with torch; a logit of 1,000 costs 1,000 or nothing, never inf."""
        logits = torch.linspace(-8, 8, 33)
        assert torch.allclose(cross_entropy(logits, 1), b(logits, 1.0))
        assert torch.allclose(cross_entropy(logits, 0), b(logits, 0.0))
        wild = torch.tensor([1000.0])
        assert cross_entropy(wild, 0).item() == 1000.0
        assert cross_entropy(wild, 1).item() == 0.0

    @pytest.mark.parametrize("shape", SHAPES)
    def test_discriminators_call_real_pairs_1_and_made_pairs_0(
        self, shape: tuple[int, ...]
    ) -> None:
        """L_Dxz, L_Dxx and L_Dzz are those of the paper, dis is their sum."""
        alad, (x, z) = new(shape).eval(), batch_of(shape)
        net, e, g = alad.network, alad.network.encode, alad.network.decode
        losses = alad.discriminator_losses(x, z)
        xz = b(alad.d_xz(x, e(x)), 1) + b(alad.d_xz(g(z), z), 0)
        xx = b(net.d_xx(x, x), 1) + b(net.d_xx(x, g(e(x))), 0)
        zz = b(alad.d_zz(z, z), 1) + b(alad.d_zz(z, e(g(z))), 0)
        for name, theirs in (("dis_xz", xz), ("dis_xx", xx), ("dis_zz", zz), ("dis", xz + xx + zz)):
            assert torch.allclose(losses[name], theirs, rtol=1e-5), name

    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("dzz", [True, False])
    def test_generator_and_encoder_flip_the_labels(self, shape: tuple[int, ...], dzz: bool) -> None:
        """L_G and L_E are those of the paper; without dzz the two terms of D_zz leave C."""
        alad, (x, z) = new(shape, dzz=dzz).eval(), batch_of(shape)
        net, e, g = alad.network, alad.network.encode, alad.network.decode
        losses = alad.maker_losses(x, z)
        cycle = b(net.d_xx(x, x), 0) + b(net.d_xx(x, g(e(x))), 1)
        if dzz:
            cycle = cycle + b(alad.d_zz(z, z), 0) + b(alad.d_zz(z, e(g(z))), 1)
        gen, enc = b(alad.d_xz(g(z), z), 1) + cycle, b(alad.d_xz(x, e(x)), 0) + cycle
        assert torch.allclose(losses["gen"], gen, rtol=1e-5)
        assert torch.allclose(losses["enc"], enc, rtol=1e-5)

    def test_one_backward_pass_serves_both(self) -> None:
        """The gradient of `both` is L_G's for the generator's weights and L_E's for E's."""
        alad, (x, z) = new().eval(), batch_of((8,))
        losses, net = alad.maker_losses(x, z), alad.network
        for part, name in ((net.generator, "gen"), (net.encoder, "enc"), (net.head, "enc")):
            weights = list(part.parameters())
            ours = torch.autograd.grad(losses["both"], weights, retain_graph=True)
            theirs = torch.autograd.grad(losses[name], weights, retain_graph=True)
            assert all(torch.allclose(a, c, atol=1e-7) for a, c in zip(ours, theirs, strict=True))

    def test_discriminator_losses_leave_the_makers_alone(self) -> None:
        """No gradient of a discriminator's loss reaches E or G."""
        alad, (x, z) = new().eval(), batch_of((8,))
        alad.discriminator_losses(x, z)["dis"].backward()  # type: ignore[no-untyped-call]
        assert all(p.grad is None for p in alad.network.maker_parameters())
        assert all(p.grad is not None for p in alad.d_zz.parameters())

    def test_each_discriminator_sees_its_own_pairs(self) -> None:
        """D_xz: (x, E(x)), (G(z), z); D_xx: (x, x), (x, G(E(x))); D_zz: (z, z), (z, E(G(z)))."""
        alad, (x, z) = new().eval(), batch_of((8,))
        e, g = alad.network.encode, alad.network.decode
        seen = {name: Calls(d) for name, d in (("xz", alad.d_xz), ("zz", alad.d_zz))}
        seen["xx"] = Calls(alad.network.d_xx)
        alad.discriminator_losses(x, z)
        expected = {
            "xz": [(x, e(x)), (g(z), z)],
            "xx": [(x, x), (x, g(e(x)))],
            "zz": [(z, z), (z, e(g(z)))],
        }
        for name, pairs in expected.items():
            assert len(seen[name].pairs) == 2
            for ours, theirs in zip(seen[name].pairs, pairs, strict=True):
                assert torch.allclose(ours[0], theirs[0]), name
                assert torch.allclose(ours[1], theirs[1]), name

    def test_reconstruction_weight_adds_the_squared_error(self) -> None:
        """Weight 0.5 adds half the squared error of x and G(E(x)), summed over features."""
        (x, z), plain, weighted = (
            batch_of((8,)),
            new().eval(),
            new(reconstruction_weight=0.5).eval(),
        )
        error = (x - plain.network.reconstruct(x)).square().sum(dim=1).mean()
        more = weighted.maker_losses(x, z)["both"] - plain.maker_losses(x, z)["both"]
        assert torch.allclose(more, 0.5 * error, rtol=1e-4)


class TestStep:
    """One batch of training."""

    def test_discriminators_and_makers_learn_from_rows_of_their_own(self, tmp_path: Path) -> None:
        """Half a batch goes to the discriminators, half to E and G, and no row to both."""
        alad = new()
        seen, x = Calls(alad.d_xz), normals(64)
        step = {"max_steps": 1, "max_epochs": -1, "limit_val_batches": 1}
        fit(
            alad,
            train=x,
            early_stop=x[:5],
            config=FitConfig(batch_size=64, min_steps_per_epoch=1, log="none"),
            trainer={"accelerator": "cpu", "enable_progress_bar": False} | step,
            run_dir=tmp_path,
            fingerprint="",
            seed=0,
        )
        first, second = seen.pairs[0][0], seen.pairs[3][0]  # x is in the first and the last pair
        assert len(first) == len(second) == 32
        both = torch.cat([first, second])
        assert torch.equal(both[both[:, 0].argsort()], x[x[:, 0].argsort()])

    def test_a_batch_of_one_row_is_used_twice(self, tmp_path: Path) -> None:
        """One row has no halves, and trains all the same."""
        config = FitConfig(batch_size=1, min_steps_per_epoch=3, log="none")
        _, happened = fitted(normals(10), tmp_path, epochs=1, fit_config=config)
        assert all(np.isfinite(value) for value in happened.history[0].values())

    def test_max_steps_counts_batches(self, tmp_path: Path) -> None:
        """Two optimizers step in a batch, and it is one step to Lightning."""
        seen: list[int] = []

        class Note(Alad):
            def training_step(self, batch: Tensor, batch_idx: int) -> None:
                super().training_step(batch, batch_idx)
                seen.append(self.global_step)

        alad = Note(AladConfig(hidden=(16, 8)), shape=(8,), columns=8)
        fit(
            alad,
            train=normals(100),
            early_stop=normals(20),
            config=FitConfig(batch_size=20, min_steps_per_epoch=1, log="none"),
            trainer={"accelerator": "cpu", "enable_progress_bar": False, "max_steps": 7},
            run_dir=tmp_path,
            fingerprint="",
            seed=0,
        )
        assert seen == [1, 2, 3, 4, 5, 6, 7]

    def test_every_network_moves(self, tmp_path: Path) -> None:
        """After a few steps no weight of the five networks is where it started, D_zz's included."""
        for dzz in (True, False):
            trained, _ = fitted(
                normals(), tmp_path / str(dzz), epochs=1, dzz=dzz, spectral_norm=False
            )
            before = new(dzz=dzz, spectral_norm=False).state_dict()
            still = [k for k, v in trained.state_dict().items() if torch.equal(v, before[k])]
            assert still == []

    def test_the_same_seed_gives_the_same_weights(self, tmp_path: Path) -> None:
        """Two runs of one seed agree to the bit; another seed does not."""
        one, two, other = (
            fitted(normals(), tmp_path / name, epochs=2, seed=seed)[0].state_dict()
            for name, seed in (("a", 0), ("b", 0), ("c", 1))
        )
        assert all(torch.equal(value, two[key]) for key, value in one.items())
        assert not torch.equal(one["network.head.weight"], other["network.head.weight"])

    def test_gradients_are_clipped(self, tmp_path: Path) -> None:
        """Rows a thousand times too large do not make weights or losses explode."""
        trained, _ = fitted(1e3 * normals(), tmp_path, epochs=1)
        assert all(torch.isfinite(value).all() for value in trained.state_dict().values())

    def test_a_loss_that_is_no_number_stops_with_advice(self, tmp_path: Path) -> None:
        """NaN rows raise TrainingDiverged naming the learning rate."""
        with pytest.raises(TrainingDiverged, match=r"alad\.learning_rate \(now 5e-05\)"):
            fitted(torch.full((50, 8), float("nan")), tmp_path, epochs=1)


class TestSpectralNorm:
    """The gain of hidden layers is 1, in tables as in images, and travels with the averages."""

    @pytest.mark.parametrize("make", [normals, bars])
    def test_hidden_layers_of_encoder_and_discriminators_have_gain_1(
        self, make: Any, tmp_path: Path
    ) -> None:
        """Their largest singular value is 1, but not G's, nor that of any last layer."""
        trained, _ = fitted(make(), tmp_path, epochs=3, learning_rate=1e-3)
        network = trained.network
        held = [
            *network.encoder.layers,
            *network.d_xx.body.layers,
            *trained.d_xz.of_x.layers,
            trained.d_xz.of_z,
            trained.d_xz.joint,
            *trained.d_zz.body.layers,
        ]
        free: list[nn.Module] = [
            network.head,
            network.d_xx.logit,
            trained.d_xz.logit,
            trained.d_zz.logit,
        ]
        free += [m for m in network.generator.modules() if hasattr(m, "weight")]
        assert [gain(layer) for layer in held] == pytest.approx([1.0] * len(held), abs=0.05)
        assert all("parametrizations" not in name for m in free for name, _ in m.named_parameters())
        assert all(abs(gain(layer) - 1.0) > 1e-3 for layer in free)

    def test_without_it_the_gain_is_free(self) -> None:
        """spectral_norm false leaves tables and images their own singular values."""
        for shape in SHAPES:
            layers = new(shape, spectral_norm=False).network.encoder.layers
            assert all(abs(gain(layer) - 1.0) > 1e-3 for layer in layers)

    @pytest.mark.parametrize("make", [normals, bars])
    def test_averages_of_no_memory_are_the_live_network(self, make: Any, tmp_path: Path) -> None:
        """With decay 0 the averaged copy scores as the network that was trained, to the bit."""
        x = make()
        live, averages = averaged_run(x, decay=0.0, folder=tmp_path)
        copied = copy.deepcopy(live)
        copied.load_state_dict(live.state_dict() | averages)
        for name in ("fm", "l1", "l2", "ch"):
            ours = copied.fit_readout(x, x, name=name)(x)[0]
            assert torch.equal(ours, live.fit_readout(x, x, name=name)(x)[0]), name

    def test_averaged_weights_keep_a_gain_of_about_1(self, tmp_path: Path) -> None:
        """Averages come with vectors of their time: stale ones left gains far from 1."""
        live, averages = averaged_run(normals(), decay=0.99, folder=tmp_path, epochs=10)
        live.load_state_dict(live.state_dict() | averages)
        gains = [gain(layer) for layer in live.network.d_xx.body.layers]
        assert gains == pytest.approx([1.0] * len(gains), abs=0.1)


def averaged_run(
    x: Tensor, *, decay: float, folder: Path, epochs: int = 2
) -> tuple[Alad, dict[str, Tensor]]:
    """The live network after a run, and the averages kept beside it."""
    found: dict[str, Tensor] = {}

    class Peek(Callback):
        def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            averaging = next(c for c in trainer.callbacks if isinstance(c, Averaging))  # type: ignore[attr-defined]  # Lightning's
            found.update(averaging.averages)

    class Watched(Alad):
        def configure_callbacks(self) -> list[Callback]:
            return [Peek()]

    torch.manual_seed(0)
    widths = (16, 8) if x.ndim == 2 else (4, 8, 16)
    alad = Watched(AladConfig(hidden=widths, latent_dim=3, learning_rate=1e-3), shape=x.shape[1:])
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[Averaging(decay)],
    )
    batches = TrainingBatches(x, batch_size=64, min_steps=20, seed=0, epoch=lambda: 0)
    trainer.fit(alad, batches, ValidationBatches(x, batch_size=64))
    return alad.eval(), found


def gain(layer: nn.Module) -> float:
    """Largest singular value of a layer's weight, its outputs in rows."""
    weight = layer.eval().weight
    assert isinstance(weight, Tensor)
    return float(torch.linalg.matrix_norm(weight.detach().flatten(1), ord=2))


class TestValidation:
    """What decides which epoch is kept."""

    def test_the_criterion_is_feature_matching_relative_to_mismatched_rows(self) -> None:
        """val_loss is mean fm(x, G(E(x))) over mean fm(x, G(E(x'))) with x' the row before."""
        alad, x = new().eval(), normals(50)
        alad.validation_step(x, 0)
        found = alad.take_means("val")
        f, again = alad.network.d_xx.features, alad.network.reconstruct(x)
        fm = (f(x, x) - f(x, again)).abs().sum(dim=1).mean()
        mismatched = (f(x, x) - f(x, again.roll(1, dims=0))).abs().sum(dim=1).mean()
        assert found["val_fm"].item() == pytest.approx(fm.item(), rel=1e-3)
        assert found["val_fm_mismatched"].item() == pytest.approx(mismatched.item(), rel=1e-3)
        assert found["val_loss"].item() == pytest.approx((fm / mismatched).item(), rel=1e-3)

    def test_an_encoder_that_says_nothing_has_the_worst_criterion(self) -> None:
        """One code for all rows gives 1, although raw fm may be small."""
        alad, x = new().eval(), normals(50)
        nn.init.zeros_(alad.network.head.weight)
        alad.validation_step(x, 0)
        found = alad.take_means("val")
        assert found["val_loss"].item() == pytest.approx(1.0, abs=1e-4)

    def test_losses_of_all_parts_are_kept_every_epoch(self, tmp_path: Path) -> None:
        """Each epoch's row has the five discriminator and maker losses and the four scores."""
        _, happened = fitted(normals(), tmp_path, epochs=3)
        terms = {f"train_{t}" for t in ("gen", "enc", "dis", "dis_xz", "dis_xx", "dis_zz")}
        terms |= {f"val_{t}" for t in ("loss", "fm", "fm_mismatched", "l1", "l2", "ch")}
        assert len(happened.history) == 3
        assert terms <= set.intersection(*(set(row) for row in happened.history))

    def test_tables_stop_early_and_keep_the_best_epoch(self, tmp_path: Path) -> None:
        """A table has validation rows, stops when they say so, and keeps that epoch (D14)."""
        config = FitConfig(batch_size=64, min_steps_per_epoch=2, patience=1, log="none")
        alad, happened = fitted(
            normals(), tmp_path, epochs=50, fit_config=config, learning_rate=5e-2
        )
        assert len(happened.history) < 50
        losses = [row["val_loss"] for row in happened.history]
        assert happened.best_epoch == int(np.argmin(losses))
        x = normals()[480:]
        alad.validation_step(x, 0)
        assert alad.take_means("val")["val_loss"].item() == pytest.approx(min(losses), rel=1e-4)

    def test_training_lowers_the_criterion(self, run_on_rows: tuple[Alad, Fitted]) -> None:
        """A dozen epochs bring it well below 1."""
        assert min(row["val_loss"] for row in run_on_rows[1].history) < 0.7


class TestScores:
    """Higher = more anomalous, deterministic, the same in every runtime."""

    @pytest.mark.parametrize("degree", [1, 2])
    def test_the_four_scores_are_the_papers(self, alad: Alad, degree: int) -> None:
        """fm, l1, l2 and ch equal their formulas, fm with the norm asked for."""
        x, net = normals(40, seed=3), copy.deepcopy(alad).network
        other = new(feature_norm=degree)
        other.load_state_dict(alad.state_dict())
        again = net.reconstruct(x)
        gap = net.d_xx.features(x, x) - net.d_xx.features(x, again)
        theirs = {
            "fm": torch.linalg.vector_norm(gap, ord=degree, dim=1),
            "l1": (x - again).abs().sum(dim=1),
            "l2": (x - again).square().sum(dim=1).sqrt(),
            "ch": -torch.log(torch.sigmoid(net.d_xx(x, again))),
        }
        for name, expected in theirs.items():
            value, reconstruction = other.fit_readout(x, x, name=name)(x)
            assert torch.allclose(value.float(), expected, rtol=1e-4, atol=1e-5), name
            assert torch.allclose(reconstruction, again)

    def test_surprise_is_minus_log_sigmoid(self) -> None:
        """Also where the sigmoid is 0 or 1 in float32."""
        logits = torch.tensor([-1000.0, -30.0, -1.0, 0.0, 2.0, 30.0, 1000.0]).double()
        assert torch.allclose(surprise(logits), -torch.nn.functional.logsigmoid(logits))

    def test_norm_equals_torchs(self) -> None:
        """Of any degree, over all features of a row."""
        x = torch.randn(5, 2, 3, 4)
        for degree in (1, 2, 3):
            theirs = torch.linalg.vector_norm(x.double(), ord=degree, dim=(1, 2, 3))
            assert torch.allclose(norm(x, degree=degree), theirs)

    def test_feature_gaps_are_differences_of_features(self, bars_alad: Alad) -> None:
        """Followed from layer to layer they come to f(x, x) - f(x, x')."""
        d_xx, x, other = bars_alad.network.d_xx, bars(20), bars(20, seed=5)
        with torch.no_grad():
            theirs = d_xx.features(x, x) - d_xx.features(x, other)
            assert torch.allclose(d_xx.feature_gap(x, other), theirs, atol=1e-5)

    @pytest.mark.parametrize("name", READOUTS)
    def test_scores_do_not_change_between_calls(self, name: str) -> None:
        """A detector still in training mode, with dropout, scores without it."""
        alad, x = new(dropout=0.5).train(), normals(100)
        readout = alad.fit_readout(x, x, name=name)
        assert torch.equal(readout(x)[0], readout(x)[0])
        assert alad.network.training

    @pytest.mark.parametrize("name", READOUTS)
    def test_scoring_leaves_the_detector_as_it_was(self, name: str, alad: Alad) -> None:
        """Fitting a read-out neither removes a spectral norm nor moves a weight."""
        before = {key: value.clone() for key, value in alad.state_dict().items()}
        alad.fit_readout(normals(), normals(100), name=name)
        assert all(torch.equal(value, before[key]) for key, value in alad.state_dict().items())

    @pytest.mark.parametrize("name", [name for name in READOUTS if name != "ch"])
    def test_broken_rows_score_higher(self, name: str, alad: Alad) -> None:
        """Noise far off the plane is told from normals with AUROC 0.95 (D2); ch alone is not."""
        fresh, broken = normals(200, seed=5), 8 * torch.randn(200, 8)
        readout = alad.fit_readout(normals(), normals(200, seed=4), name=name)
        scores = readout(torch.cat([fresh, broken]))[0]
        assert roc_auc_score([0] * 200 + [1] * 200, scores.numpy()) > 0.95

    def test_the_default_is_whitened(self) -> None:
        """auto reads the whitened path, features included, for rows and for images."""
        assert [new(shape).readout for shape in SHAPES] == ["whitened", "whitened"]
        assert new(readout="fm").readout == "fm"

    def test_complexity_corrects_only_the_configured_readout(self, bars_alad: Alad) -> None:
        """With complexity the default read-out changes by it, one asked for by name does not."""
        x = bars(150, seed=2)
        asked = new((1, 12, 12), readout="l1", complexity="variation")
        asked.load_state_dict(bars_alad.state_dict())
        plain = bars_alad.fit_readout(x, x, name="ch")(x)[0]
        assert torch.equal(asked.fit_readout(x, x, name="ch")(x)[0], plain)
        corrected = asked.fit_readout(x, x)(x)[0]
        assert not torch.allclose(corrected, bars_alad.fit_readout(x, x, name="l1")(x)[0])

    @pytest.mark.parametrize("name", READOUTS)
    def test_rows_score_the_same_in_every_runtime(self, name: str, tmp_path: Path) -> None:
        """ONNX Runtime and TorchScript agree with torch within 1e-5 of the scale."""
        rows = normals(400, seed=4)
        columns = tuple(Column(name=f"c{i}", kind="number", dtype="float32") for i in range(8))
        features = TableFeatures(TableInput(columns=columns), rows.numpy())
        x = features(rows)
        readout = new((features.width,)).fit_readout(x[:300], x[300:], name=name)
        graph = ScoringGraph(features, readout, rows[300:])
        assert worst_difference(graph, rows, tmp_path) <= 1e-5

    @pytest.mark.parametrize("name", READOUTS)
    def test_images_score_the_same_in_every_runtime(
        self, name: str, bars_alad: Alad, tmp_path: Path
    ) -> None:
        """So do images."""
        pixels = (bars(300, seed=4) * 255).round().to(torch.uint8)
        x = ImageFeatures()(pixels)
        readout = bars_alad.fit_readout(x[:200], x[200:], name=name)
        graph = ScoringGraph(ImageFeatures(), readout, pixels[200:])
        assert worst_difference(graph, pixels, tmp_path) <= 1e-5


def worst_difference(graph: ScoringGraph, x: Tensor, folder: Path) -> float:
    """Of ONNX and TorchScript from torch, in interquartile ranges of the scores."""
    write_onnx(graph, x[:2], folder / "model.onnx")
    write_torchscript(graph, x[:2], folder / "model.pt")
    with torch.no_grad():
        low, high = np.quantile(graph(x)[0].numpy(), [0.25, 0.75])
    parity = check_parity(
        graph,
        onnx=folder / "model.onnx",
        torchscript=folder / "model.pt",
        x=x.numpy(),
        scale=float(high - low),
    )
    return max(parity.onnx, parity.torchscript)


class TestConfig:
    """What is left open is settled; what cannot work is refused."""

    def test_defaults_fit_rows_and_images(self) -> None:
        """With everything unset both kinds build, and give back the shape they had."""
        for shape in ((21,), (1, 28, 28), (3, 33, 41)):
            alad = Alad(AladConfig(), shape=shape, columns=shape[0]).eval()
            x = torch.rand(2, *shape)
            assert alad.reconstruct(x).shape == x.shape
            assert alad.encode(x).shape == (2, alad.latent_dim)
            assert alad.sample(torch.randn(2, alad.latent_dim)).shape == x.shape
            assert 0 <= alad.active_units(x) <= alad.latent_dim

    def test_images_come_out_within_0_and_1(self) -> None:
        """Whatever the code, a generated pixel is on the scale of the data (D10)."""
        made = new((1, 17, 20)).eval().sample(50 * torch.randn(8, 3))
        assert made.min() >= 0
        assert made.max() <= 1

    def test_discriminators_take_widths_of_their_own(self) -> None:
        """discriminator_hidden sizes D_xx and D_xz, the encoder keeps `hidden`."""
        alad = new(discriminator_hidden=(32,))
        assert alad.network.d_xx.logit.in_features == 32
        assert alad.d_xz.logit.in_features == 32
        assert alad.network.encoder.width == 8

    def test_widths_of_the_discriminators_are_refused_by_their_own_name(self) -> None:
        """For images they need a convolution, too, and are not taken for the encoder's."""
        with pytest.raises(BadInput, match=r"'alad\.discriminator_hidden' \(8,\) halves"):
            new((1, 17, 20), discriminator_hidden=(8,))

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"latent_dim": 0}, r"'alad\.latent_dim' must be >= 1, got 0"),
            ({"hidden": ()}, r"'alad\.hidden' must be >= 1, got 0"),
            ({"discriminator_hidden": (8, 0)}, r"'alad\.discriminator_hidden' must be >= 1, got 0"),
            ({"dropout": 1.0}, r"'alad\.dropout' must be within 0\.\.0\.9, got 1"),
            ({"learning_rate": -1.0}, r"'alad\.learning_rate' must be >= 0, got -1"),
            ({"beta1": 1.0}, r"'alad\.beta1' must be within 0\.\.0\.9999, got 1"),
            ({"reconstruction_weight": -1.0}, r"'alad\.reconstruction_weight' must be >= 0"),
            ({"shift_pixels": -1}, r"'alad\.shift_pixels' must be >= 0, got -1"),
            ({"feature_norm": 0}, r"'alad\.feature_norm' must be >= 1, got 0"),
            ({"complexity": "variation"}, r"'alad\.complexity' variation is for images"),
        ],
    )
    def test_what_cannot_work_is_refused_by_name(self, wrong: dict[str, Any], message: str) -> None:
        """Each message names the option and the value."""
        with pytest.raises(BadInput, match=message):
            new(**wrong)
