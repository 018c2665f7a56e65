"""Data that several tests train on."""

import numpy as np
import pytest
import torch

from amiss_training.data import DataOptions, Prepared, prepare


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Weights equal to the bit need one order of summation; TorchScript may have set another."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def line_table(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """400 rows near a line; the last 40 are off it."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(400, 1))
    x = np.hstack([a, -a, 2 * a]) + 0.1 * rng.normal(size=(400, 3))
    x[-40:] += [0.0, 6.0, 0.0]
    path = tmp_path_factory.mktemp("rows") / "rows.npz"
    np.savez(path, X=x.astype(np.float32), y=np.arange(400) // 360)
    return prepare(path, DataOptions(label_column="y", normal_class="0"), seed=0)
