"""Rows of one tensor in batches: one gather a step, no workers, no copies row by row."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, distributed


def derived_seed(*numbers: int) -> int:
    """A seed that depends on every number: of the run, the epoch, the process.

    So an epoch draws the same rows and the same noise whether or not the run was interrupted.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


class TrainingBatches:
    """An epoch of full batches (batch_size, ...) in an order of its own.

    Rows are drawn permutation after permutation, so a batch is full even where rows are few. In a
    distributed run every process takes its slice of the same order. epoch: which one is about to
    start.
    """

    def __init__(
        self,
        rows: Tensor,
        *,
        batch_size: int,
        min_steps: int,
        seed: int,
        epoch: Callable[[], int],
    ) -> None:
        self.rows, self.batch_size, self.min_steps = rows, batch_size, min_steps
        self.seed, self.epoch = seed, epoch

    def __len__(self) -> int:
        return max(math.ceil(len(self.rows) / (self.batch_size * _processes())), self.min_steps)

    def __iter__(self) -> Iterator[Tensor]:
        mine = self._order()[_process() :: _processes()].to(self.rows.device)
        for indices in torch.split(mine, self.batch_size):
            yield self.rows.index_select(0, indices)

    def _order(self) -> Tensor:
        """Which rows the epoch draws, over all processes."""
        generator = torch.Generator().manual_seed(derived_seed(self.seed, self.epoch()))
        drawn = len(self) * self.batch_size * _processes()
        rounds = math.ceil(drawn / len(self.rows))
        order = [torch.randperm(len(self.rows), generator=generator) for _ in range(rounds)]
        return torch.cat(order)[:drawn]


class ValidationBatches:
    """All rows in their order. Every process sees all of them and comes to the same verdict."""

    def __init__(self, rows: Tensor, *, batch_size: int) -> None:
        self.rows, self.batch_size = rows, batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(torch.split(self.rows, self.batch_size))


def _process() -> int:
    return distributed.get_rank() if _is_distributed() else 0


def _processes() -> int:
    return distributed.get_world_size() if _is_distributed() else 1


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()
