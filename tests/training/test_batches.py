"""Batches gathered from one tensor: full, shuffled, repeatable, shared out between processes."""

import subprocess
import sys
from pathlib import Path

import torch

from amiss_training.batches import TrainingBatches, ValidationBatches, derived_seed


def batches(
    n: int, *, batch_size: int = 8, min_steps: int = 0, epoch: int = 0, seed: int = 0
) -> TrainingBatches:
    rows = torch.arange(float(n)).unsqueeze(1)
    return TrainingBatches(
        rows, batch_size=batch_size, min_steps=min_steps, seed=seed, epoch=lambda: epoch
    )


def drawn(source: TrainingBatches) -> list[int]:
    return torch.cat(list(source)).flatten().int().tolist()


def test_an_epoch_draws_every_row_before_any_again() -> None:
    """Of 30 rows in batches of 8, the first 30 drawn are all different, the batches all full."""
    source = batches(30)
    assert [len(batch) for batch in source] == [8] * 4
    assert len(source) == 4
    assert sorted(drawn(source)[:30]) == list(range(30))


def test_few_rows_are_gone_through_several_times() -> None:
    """Three rows and at least five steps of 8: each row is drawn 13 or 14 times."""
    source = batches(3, min_steps=5)
    assert len(source) == 5
    assert {drawn(source).count(row) for row in range(3)} <= {13, 14}


def test_the_order_is_decided_by_seed_and_epoch() -> None:
    """The same seed and epoch draw the same order; another of either draws another."""
    assert drawn(batches(50)) == drawn(batches(50))
    assert drawn(batches(50)) != drawn(batches(50, epoch=1))
    assert drawn(batches(50)) != drawn(batches(50, seed=1))


def test_the_order_leaves_torchs_own_generator_alone() -> None:
    """Drawing an epoch does not change what torch draws next."""
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    drawn(batches(50))
    assert torch.equal(torch.rand(3), expected)


def test_validation_sees_all_rows_in_their_order() -> None:
    """Ten rows in batches of 4 come back in order, the last batch shorter."""
    rows = torch.arange(10.0).unsqueeze(1)
    source = ValidationBatches(rows, batch_size=4)
    assert [len(batch) for batch in source] == [4, 4, 2]
    assert len(source) == 3
    assert torch.equal(torch.cat(list(source)), rows)


def test_derived_seeds_differ_by_every_number() -> None:
    """No two of a hundred seed, epoch, process triples give the same seed."""
    triples = [(seed, epoch, rank) for seed in range(5) for epoch in range(10) for rank in (1, 2)]
    assert len({derived_seed(*numbers) for numbers in triples}) == len(triples)


DRAW = """
import sys, torch
from torch import distributed
from amiss_training.batches import TrainingBatches
rank, store = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
rows = torch.arange(64.0)
for batch in TrainingBatches(rows, batch_size=8, min_steps=0, seed=0, epoch=lambda: 0):
    print(*batch.int().tolist())
distributed.destroy_process_group()
"""


def test_processes_share_an_epoch_out(tmp_path: Path) -> None:
    """Of 64 rows two processes draw 4 batches of 8 each, together every row once."""
    commands = [[sys.executable, "-c", DRAW, str(rank), f"file://{tmp_path}/s"] for rank in (0, 1)]
    children = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands
    ]
    lines = [child.communicate(timeout=200)[0].splitlines() for child in children]
    assert [len(batches) for batches in lines] == [4, 4]
    drawn_rows = [int(row) for batches in lines for line in batches for row in line.split()]
    assert sorted(drawn_rows) == list(range(64))
