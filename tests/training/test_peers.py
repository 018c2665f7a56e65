"""The simple peers find what is planted, and say so when they cannot."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.svm import OneClassSVM

from amiss_export.errors import BadInput
from amiss_training.peers import Peer, peer_scores, peer_table
from amiss_training.wording import TITLES

SUBSPACE, DIMENSIONS = 3, 12


def test_every_peer_ranks_planted_anomalies_above_normals() -> None:
    """Rows pushed off the normals' plane get AUROC > 0.95 from each peer, the axis-bound > 0.8."""
    normals, test, truth = _planted()
    for name, row in _table(peer_scores(normals, test, seed=0), truth).items():
        least = 0.8 if name in ("isolation_forest", "ecod") else 0.95
        assert row["auroc"] > least, (name, row)
        assert row["auprc"] > 0.5, (name, row)


def test_each_peer_has_a_title_and_the_other_way_round() -> None:
    """Peers and their titles are the same set."""
    normals, test, _ = _planted()
    images, more = (x.reshape(-1, 1, 3, 4) for x in (normals, test))
    of_images = peer_scores(images, more, seed=0, untrained=np.arange(130.0))
    assert set(of_images) == set(TITLES)
    assert set(TITLES) - set(peer_scores(normals, test, seed=0)) == {"knn_complexity", "untrained"}


def test_same_seed_same_scores() -> None:
    """Two runs with one seed agree bit for bit."""
    normals, test, _ = _planted()
    first, second = (peer_scores(normals, test, seed=3) for _ in range(2))
    for name, peer in first.items():
        assert peer.scores is not None
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
    table = _table(peer_scores(x[:200], x[200:], seed=0), truth)
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
    assert _table({"knn": first}, truth)["knn"]["auroc"] > 0.9


def test_a_peer_that_fails_stays_in_the_table_with_its_reason() -> None:
    """NaN features make scikit-learn's peers fail: each is listed with None and the reason."""
    normals, test, truth = _planted()
    normals[0, 0] = np.nan
    table = _table(peer_scores(normals, test, seed=0), truth)
    for name, row in table.items():
        if name != "isolation_forest":  # it takes a missing value as one
            assert row["auroc"] is None, name
            assert row["note"].startswith("failed:"), name
    assert table["knn"]["note"].startswith("failed: ValueError")


def test_one_class_test_has_no_auroc() -> None:
    """Without anomalies the table holds None, not an error."""
    table = _table({"knn": Peer(np.arange(4.0), "")}, np.zeros(4, dtype=bool))
    assert table == {"knn": {"auroc": None, "auprc": None, "difference": None, "note": ""}}


def test_features_that_differ_are_refused() -> None:
    """Normals and test rows of different width raise BadInput naming both shapes."""
    normals, test, _ = _planted()
    with pytest.raises(BadInput, match=r"\(600, 12\) and \(130, 11\)"):
        peer_scores(normals, test[:, 1:], seed=0)


def test_lof_equals_scikit_learns() -> None:
    """The factor of each test row is what LocalOutlierFactor(novelty=True) gives."""
    normals, test, _ = _planted()
    expected = -LocalOutlierFactor(n_neighbors=20, novelty=True).fit(normals).score_samples(test)
    found = peer_scores(normals, test, seed=0)["lof"].scores
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_one_class_svm_equals_scikit_learns_decision() -> None:
    """The kernel sum differs from minus the decision function by one constant only."""
    normals, test, _ = _planted()
    svm = OneClassSVM(nu=0.1).fit(normals.astype(np.float64))
    found = peer_scores(normals, test, seed=0)["one_class_svm"].scores
    assert np.ptp(found + svm.decision_function(test.astype(np.float64))) < 1e-6


def test_ecod_of_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    """Scored alone or among others, a row gets one score (PyOD's ranks the batch with it)."""
    normals, test, _ = _planted()
    among = peer_scores(normals, test, seed=0)["ecod"].scores
    alone = peer_scores(normals, test[7:8], seed=0)["ecod"].scores
    assert alone[0] == among[7]


def test_ecod_equals_the_three_sums_of_tails() -> None:
    """On a column with a tail on each side it is the largest of left, right and long-side."""
    rng = np.random.default_rng(5)
    normals = np.c_[rng.exponential(size=500), -rng.exponential(size=500)].astype(np.float32)
    row = np.array([[4, -3]], dtype=np.float32)
    left = -np.log(((normals <= row).sum(axis=0) + 1) / 501)
    right = -np.log(((normals >= row).sum(axis=0) + 1) / 501)
    expected = max(left.sum(), right.sum(), right[0] + left[1])
    assert peer_scores(normals, row, seed=0)["ecod"].scores == pytest.approx([expected])


def test_complexity_correction_takes_busyness_out_of_the_distance() -> None:
    """It is the z-scored residual of scikit-learn's regression on images of varied contrast."""
    rng = np.random.default_rng(6)
    contrast = rng.uniform(0.5, 1, size=(400, 1, 1, 1))
    images = (contrast * rng.random(size=(400, 1, 6, 6))).astype(np.float32)
    normals, test = images[:300], images[300:]
    found = peer_scores(normals, test, seed=0)["knn_complexity"].scores

    search = NearestNeighbors(n_neighbors=5).fit(normals.reshape(300, -1))
    own = np.log(search.kneighbors()[0].mean(axis=1))
    others = np.log(search.kneighbors(test.reshape(100, -1))[0].mean(axis=1))
    line = LinearRegression().fit(_log_variation(normals), own)
    spread = (own - line.predict(_log_variation(normals))).std()
    expected = (others - line.predict(_log_variation(test))) / spread
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.05)
    assert abs(np.corrcoef(found, contrast[300:].ravel())[0, 1]) < 0.3
    assert np.corrcoef(others, contrast[300:].ravel())[0, 1] > 0.8


def test_untrained_scores_of_another_length_are_refused() -> None:
    """Scores for fewer rows than the test has raise BadInput naming both."""
    normals, test, _ = _planted()
    with pytest.raises(BadInput, match=r"\(130,\).*got \(5,\)"):
        peer_scores(normals, test, seed=0, untrained=np.zeros(5))


def test_a_peer_ahead_of_ours_has_a_negative_difference() -> None:
    """Against random scores a perfect peer is ahead, and its interval leaves out 0."""
    truth = np.arange(200) >= 100
    ours = np.random.default_rng(0).random(200)
    row = peer_table({"knn": Peer(truth.astype(float), "")}, truth, ours=ours)["knn"]
    assert row["difference"]["high"] < 0
    assert row["difference"]["excludes_zero"]


def _log_variation(images: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n, 1), clipped to nothing: these images lie within three standard deviations."""
    steps = [np.abs(images[:, :, 1:] - images[:, :, :-1]), np.abs(np.diff(images, axis=3))]
    return np.log(sum(s.reshape(len(images), -1).mean(axis=1) for s in steps))[:, None]


def _table(scores: dict[str, Peer], truth: NDArray[np.bool_]) -> dict[str, dict[str, Any]]:
    return peer_table(scores, truth, ours=np.arange(len(truth), dtype=np.float64))


def _planted() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """600 normals near a 3-dimensional plane, 100 more for the test and 30 rows far off it."""
    rng = np.random.default_rng(7)
    plane = rng.normal(size=(SUBSPACE, DIMENSIONS))
    x = rng.normal(size=(730, SUBSPACE)) @ plane + 0.1 * rng.normal(size=(730, DIMENSIONS))
    x[700:] += 3 * rng.normal(size=(30, DIMENSIONS))
    return x[:600].astype(np.float32), x[600:].astype(np.float32), np.arange(130) >= 100
