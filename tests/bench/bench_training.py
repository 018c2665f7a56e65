"""Optimiser steps per CPU second: our VAE and ALAD beside PyOD's, ratios in one run.

    OMP_NUM_THREADS=1 .venv/bin/python tests/bench/bench_training.py [--rounds 5 --steps 600]

One synthetic table (20,000 x 30), one thread, equal layer widths, latent size and rows per update;
spectral norm and D_zz on in both ALADs. A step is one update of every network on fresh rows: of a
VAE, the VAE; of an ALAD, its discriminators and then encoder and generator. Ours takes the rows of
the two from two halves of a batch, so its batch is twice as large. Everything a user waits for is
counted: drawing the batches on both sides, on ours also validation, the moving average, logging
and checkpoints; not counted is what happens once (building the network, PyOD's final scoring).
PyOD's ALAD shuffles the whole table before every step, which on this one is more than half of its
time: its bare train_step on ready rows is about as fast as our whole step, which decodes and
encodes more (x against G(E(x)), z against E(G(z))).
The two take turns, so whatever else the machine does meets both.
"""

import argparse
import contextlib
import gc
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from pyod.models.alad import ALAD
from pyod.models.vae import VAE

from amiss_training import fit as fitting
from amiss_training.detectors.alad import LATENT_WIDTHS, Alad, AladConfig
from amiss_training.detectors.module import Detector
from amiss_training.detectors.vae import Vae, VaeConfig

ROWS, COLUMNS, VALIDATED, LATENT = 20_000, 30, 1_000, 8
X = np.random.default_rng(0).normal(size=(ROWS, COLUMNS)).astype(np.float32)


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    widths, batch = tuple(options.hidden), options.batch_size
    ours_theirs: dict[str, tuple[Callable[[int], float], Callable[[int], float]]] = {
        "VAE": (
            lambda steps: _ours(_vae(widths), batch_size=batch, steps=steps),
            lambda steps: _pyod_vae(widths, batch_size=batch, steps=steps),
        ),
        "ALAD": (
            lambda steps: _ours(_alad(widths), batch_size=2 * batch, steps=steps),
            lambda steps: _pyod_alad(widths, batch_size=batch, steps=steps),
        ),
    }
    for name, (ours, theirs) in ours_theirs.items():
        for run in (ours, theirs):
            run(20)  # imports, first allocations
        gc.collect()
        gc.freeze()  # a sweep through all that is imported would fall to either by chance
        rates = [(ours(options.steps), theirs(options.steps)) for _ in range(options.rounds)]
        ratios = sorted(a / b for a, b in rates)
        print(
            f"{name:5} ours {statistics.median(a for a, _ in rates):6.0f} steps/CPU s"
            f"   PyOD {statistics.median(b for _, b in rates):6.0f}"
            f"   ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=600, help="steps of each in a round")
    parser.add_argument("--batch-size", type=int, default=128, help="rows in an update")
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 32], help="widths")
    return parser.parse_args()


def _vae(widths: tuple[int, ...]) -> Vae:
    return Vae(VaeConfig(hidden=widths, latent_dim=LATENT), shape=(COLUMNS,), columns=COLUMNS)


def _alad(widths: tuple[int, ...]) -> Alad:
    return Alad(AladConfig(hidden=widths, latent_dim=LATENT), shape=(COLUMNS,), columns=COLUMNS)


def _ours(detector: Detector, *, batch_size: int, steps: int) -> float:
    x, at_s = torch.from_numpy(X), {}
    for hook in ("on_train_start", "on_train_end"):
        setattr(detector, hook, lambda hook=hook: at_s.update({hook: time.process_time()}))
    with tempfile.TemporaryDirectory() as folder:
        fitting.fit(
            detector,
            train=x,
            early_stop=x[:VALIDATED],
            config=fitting.FitConfig(batch_size=batch_size),
            trainer={"max_steps": steps, "accelerator": "cpu"},
            run_dir=Path(folder),
            fingerprint="",
            seed=0,
        )
    return steps / (at_s["on_train_end"] - at_s["on_train_start"])


def _pyod_vae(widths: tuple[int, ...], *, batch_size: int, steps: int) -> float:
    vae = VAE(
        encoder_neuron_list=list(widths),
        decoder_neuron_list=list(reversed(widths)),
        latent_dim=LATENT,
        batch_size=batch_size,
        epoch_num=max(1, round(steps / (ROWS // batch_size))),
        device="cpu",
        verbose=0,
    )
    train, spent_s = vae.train, []

    def timed(loader: object) -> None:
        started_s = time.process_time()
        train(loader)
        spent_s.append(time.process_time() - started_s)

    vae.train = timed
    vae.fit(X)
    return float(vae.epoch_num * (ROWS // batch_size) / spent_s[0])


def _pyod_alad(widths: tuple[int, ...], *, batch_size: int, steps: int) -> float:
    alad = ALAD(
        enc_layers=list(widths),
        dec_layers=list(reversed(widths)),
        disc_xz_layers=list(widths),
        disc_xx_layers=list(widths),
        disc_zz_layers=list(LATENT_WIDTHS),
        latent_dim=LATENT,
        spectral_normalization=True,
        batch_size=batch_size,
        epochs=steps,  # one of its epochs is one mini-batch
        device=torch.device("cpu"),
    )
    score, ended_s = alad.get_outlier_scores, []

    def timed(x: object) -> object:
        ended_s.append(time.process_time())
        return score(x)

    alad.get_outlier_scores = timed
    started_s = time.process_time()
    with contextlib.redirect_stdout(None):
        alad.fit(X)
    return steps / (ended_s[0] - started_s)


if __name__ == "__main__":
    main()
