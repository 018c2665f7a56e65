"""Splits: disjoint roles, equal rows on one side, hashes that prove it."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amiss_export.errors import TooFewRows
from amiss_training.data.splits import (
    Roles,
    keep_apart,
    repeats_of_train,
    role_hash,
    row_hashes,
    split_roles,
    split_with_own_test,
)

SHARES = (0.6, 0.1, 0.15)


def some_rows(n: int, distinct: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.integers(0, distinct, n), rng.random(n) < 0.3


@given(n=st.integers(60, 400), distinct=st.integers(30, 300), seed=st.integers(0, 99))
def test_roles_partition_the_rows(n: int, distinct: int, seed: int) -> None:
    """Every row has exactly one role, no anomaly is outside test, no group of normals is cut."""
    groups, is_anomaly = some_rows(n, distinct)
    roles = split_roles(groups, is_anomaly, shares=SHARES, seed=seed)
    together = np.concatenate([index for _, index in roles.items()])
    assert sorted(together.tolist()) == list(range(n))
    for name, index in roles.items():
        assert (np.diff(index) > 0).all()
        assert name == "test" or not is_anomaly[index].any()
    seen = [set(groups[index[~is_anomaly[index]]].tolist()) for _, index in roles.items()]
    assert sum(map(len, seen)) == len(set.union(*seen))


def test_shares_are_met_within_a_row() -> None:
    """1,000 different normals at 60/10/15 % leave 600, 100, 150 and 150."""
    roles = split_roles(np.arange(1000), np.zeros(1000, bool), shares=SHARES, seed=0)
    sizes = [len(index) for _, index in roles.items()]
    assert sizes == [600, 100, 150, 150]


def test_seed_decides() -> None:
    """The same seed divides alike, another seed otherwise."""
    rows = np.arange(100), np.zeros(100, bool)
    first, again, other = (split_roles(*rows, shares=SHARES, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.train, again.train)
    assert first.train.tolist() != other.train.tolist()


def test_a_changed_row_moves_no_other() -> None:
    """Roles follow the order of appearance, not the values of the groups."""
    rows, normal = np.arange(100), np.zeros(100, bool)
    changed = np.where(rows == 50, 10**6, rows)
    before = split_roles(rows, normal, shares=SHARES, seed=0)
    after = split_roles(changed, normal, shares=SHARES, seed=0)
    for (_, one), (_, other) in zip(before.items(), after.items(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_too_few_distinct_normals_are_refused_with_the_number() -> None:
    """Three distinct normals cannot fill four roles, however often they repeat."""
    with pytest.raises(TooFewRows, match=r"need >= 4 distinct normal rows, got 3"):
        split_roles(np.array([0, 1, 2] * 50), np.zeros(150, bool), shares=SHARES, seed=0)
    roles = split_roles(np.arange(4), np.zeros(4, bool), shares=SHARES, seed=0)
    assert [len(index) for _, index in roles.items()] == [1, 1, 1, 1]


@given(
    groups=st.integers(4, 60),
    weights=st.lists(st.integers(1, 1000), min_size=4, max_size=4),
)
def test_no_role_is_empty_however_small_its_share(groups: int, weights: list[int]) -> None:
    """Four groups or more fill four roles, and no role is off its share by more than three."""
    shares = np.array(weights) / sum(weights)
    roles = split_roles(np.arange(groups), np.zeros(groups, bool), shares=shares[:3], seed=0)
    sizes = np.array([len(index) for _, index in roles.items()])
    assert sizes.min() >= 1
    assert sizes.sum() == groups
    np.testing.assert_allclose(sizes, shares * groups, atol=3)


def test_shares_of_one_leave_no_normal_in_test() -> None:
    """When the three shares add up to one, test holds the anomalies alone."""
    is_anomaly = np.arange(50) >= 40
    roles = split_roles(np.arange(50), is_anomaly, shares=(0.7, 0.1, 0.2), seed=0)
    assert roles.test.tolist() == list(range(40, 50))


def test_own_test_stays_test() -> None:
    """Rows the data call test are test whatever they are; the rest fill the other three roles."""
    own_test = np.arange(100) >= 60
    is_anomaly = np.arange(100) >= 80
    roles = split_with_own_test(np.arange(100), is_anomaly, own_test, shares=SHARES, seed=0)
    assert roles.test.tolist() == list(range(60, 100))
    assert len(roles.train) > len(roles.calibration) > len(roles.early_stop) > 0


def test_a_normal_equal_to_one_of_the_own_test_is_not_trained_on() -> None:
    """Such a normal joins the test (defect D8); one that equals a test anomaly only stays."""
    groups = np.arange(100)
    groups[[3, 5]] = [60, 80]
    is_anomaly, own_test = np.arange(100) >= 80, np.arange(100) >= 60
    for seed in range(5):
        roles = split_with_own_test(groups, is_anomaly, own_test, shares=SHARES, seed=seed)
        assert roles.test.tolist() == [3, *range(60, 100)]


def test_keep_apart_moves_equal_rows_to_the_earliest_role() -> None:
    """A calibration row equal to a training row joins train; an equal anomaly stays in test."""
    roles = Roles(np.array([0, 1]), np.array([2]), np.array([3, 4]), np.array([5, 6]))
    hashes = np.array([10, 11, 12, 10, 13, 13, 10], dtype=np.uint64)
    apart = keep_apart(roles, hashes, np.array([False] * 6 + [True]))
    assert [index.tolist() for _, index in apart.items()] == [[0, 1, 3], [2], [4, 5], [6]]
    assert repeats_of_train(apart, hashes, np.array([False] * 6 + [True])) == 1


def test_keep_apart_refuses_to_empty_a_role() -> None:
    """When every early-stop row equals a training row there is nothing to stop on."""
    roles = Roles(np.array([0]), np.array([1]), np.array([2]), np.array([3]))
    with pytest.raises(TooFewRows, match="early_stop"):
        keep_apart(roles, np.array([7, 7, 8, 9], dtype=np.uint64), np.ones(4, bool))


def test_row_hashes_are_equal_exactly_for_equal_rows() -> None:
    """Rows hash alike when equal, -0.0 and NaN included, and apart when one cell differs."""
    x = np.array([[0.0, np.nan], [-0.0, np.nan], [0.0, 1.0]], dtype=np.float32)
    hashes = row_hashes(x)
    assert hashes[0] == hashes[1] != hashes[2]


def test_row_hash_is_blake2b_of_the_little_endian_bytes() -> None:
    """The hash can be computed elsewhere: blake2b, 8 bytes, over the row as stored."""
    x = np.arange(12, dtype=np.uint8).reshape(2, 1, 2, 3)
    expected = int.from_bytes(hashlib.blake2b(x[1].tobytes(), digest_size=8).digest(), "little")
    assert int(row_hashes(x)[1]) == expected


def test_role_hash_tells_rows_and_order_apart() -> None:
    """The hash of a role changes with its rows and is hex sha256."""
    x = np.eye(4, dtype=np.float32)
    first, second = role_hash(x, np.array([0, 1])), role_hash(x, np.array([0, 2]))
    assert first != second
    assert len(bytes.fromhex(first)) == 32
