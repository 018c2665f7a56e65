"""The simple peers find what is planted, and say so when they cannot."""

import numpy as np
import pytest
from numpy.typing import NDArray

from amiss_export.errors import BadInput
from amiss_training.peers import Peer, peer_scores, peer_table
from amiss_training.wording import TITLES

SUBSPACE, DIMENSIONS = 3, 12


def test_every_peer_ranks_planted_anomalies_above_normals() -> None:
    """Rows pushed off the normals' plane get AUROC > 0.95 from each peer, the forest > 0.8."""
    normals, test, truth = _planted()
    for name, row in peer_table(peer_scores(normals, test, seed=0), truth).items():
        assert row["auroc"] > (0.8 if name == "isolation_forest" else 0.95), (name, row)
        assert row["auprc"] > 0.5, (name, row)


def test_each_peer_has_a_title_and_the_other_way_round() -> None:
    """Peers and their titles are the same set."""
    normals, test, _ = _planted()
    assert set(peer_scores(normals, test, seed=0)) == set(TITLES)


def test_same_seed_same_scores() -> None:
    """Two runs with one seed agree bit for bit."""
    normals, test, _ = _planted()
    first, second = (peer_scores(normals, test, seed=3) for _ in range(2))
    for name, peer in first.items():
        assert np.array_equal(peer.scores, second[name].scores), name


def test_mahalanobis_equals_the_textbook_formula() -> None:
    """With no eigenvalue at the floor it is (x - m)' S^-1 (x - m)."""
    rng = np.random.default_rng(0)
    normals = (rng.normal(size=(400, 4)) @ rng.normal(size=(4, 4))).astype(np.float32)
    test = rng.normal(size=(50, 4)).astype(np.float32)
    centred = test - normals.mean(axis=0, dtype=np.float64)
    inverse = np.linalg.inv(np.cov(normals.astype(np.float64), rowvar=False))
    expected = np.einsum("ij,jk,ik->i", centred, inverse, centred)
    found = peer_scores(normals, test, seed=0)["mahalanobis"].scores
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_knn_equals_brute_force() -> None:
    """The score is the mean of the five smallest distances."""
    normals, test, _ = _planted()
    distance = np.linalg.norm(test[:, None].astype(np.float64) - normals[None], axis=2)
    expected = np.sort(distance, axis=1)[:, :5].mean(axis=1)
    found = peer_scores(normals, test, seed=0)["knn"].scores
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_pca_residual_is_zero_inside_the_subspace() -> None:
    """A row inside the normals' plane scores 0, one that leaves it the squared distance."""
    rng = np.random.default_rng(1)
    normals = np.zeros((300, 3), dtype=np.float32)
    normals[:, :2] = rng.normal(size=(300, 2))
    test = np.array([[4, -4, 0], [0, 0, 3]], dtype=np.float32)
    found = peer_scores(normals, test, seed=0)["pca_residual"].scores
    np.testing.assert_allclose(found, [0, 9], atol=1e-6)


def test_constant_and_dependent_columns_spoil_no_peer() -> None:
    """One-hot blocks and constant columns leave every score finite and anomalies on top."""
    rng = np.random.default_rng(2)
    one_hot = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 330)]
    x = np.c_[rng.normal(size=(330, 2)), one_hot, np.zeros((330, 2))].astype(np.float32)
    x[300:, 6] = 5
    truth = np.arange(30 + 100) >= 100
    table = peer_table(peer_scores(x[:200], x[200:], seed=0), truth)
    assert all(row["auroc"] is not None for row in table.values()), table
    assert table["mahalanobis"]["auroc"] == 1.0


def test_many_normals_are_thinned_and_the_note_says_so() -> None:
    """Above the limit kNN looks at a fixed subsample, states its size, and stays deterministic."""
    normals, test, truth = _planted()
    first, second = (
        peer_scores(normals, test, seed=0, max_neighbour_rows=100)["knn"] for _ in range(2)
    )
    assert "100 drawn from 600" in first.note
    assert np.array_equal(first.scores, second.scores)
    assert peer_table({"knn": first}, truth)["knn"]["auroc"] > 0.9


def test_a_peer_that_fails_stays_in_the_table_with_its_reason() -> None:
    """NaN features make scikit-learn's peers fail: each is listed with None and the reason."""
    normals, test, truth = _planted()
    normals[0, 0] = np.nan
    table = peer_table(peer_scores(normals, test, seed=0), truth)
    assert set(table) == set(TITLES)
    assert table["knn"]["auroc"] is None
    assert table["knn"]["note"].startswith("failed: ValueError")


def test_one_class_test_has_no_auroc() -> None:
    """Without anomalies the table holds None, not an error."""
    table = peer_table({"knn": Peer(np.arange(4.0), "")}, np.zeros(4, dtype=bool))
    assert table == {"knn": {"auroc": None, "auprc": None, "note": ""}}


def test_features_that_differ_are_refused() -> None:
    """Normals and test rows of different width raise BadInput naming both shapes."""
    normals, test, _ = _planted()
    with pytest.raises(BadInput, match=r"\(600, 12\) and \(130, 11\)"):
        peer_scores(normals, test[:, 1:], seed=0)


def _planted() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """600 normals near a 3-dimensional plane, 100 more for the test and 30 rows far off it."""
    rng = np.random.default_rng(7)
    plane = rng.normal(size=(SUBSPACE, DIMENSIONS))
    x = rng.normal(size=(730, SUBSPACE)) @ plane + 0.1 * rng.normal(size=(730, DIMENSIONS))
    x[700:] += 3 * rng.normal(size=(30, DIMENSIONS))
    return x[:600].astype(np.float32), x[600:].astype(np.float32), np.arange(130) >= 100
