"""Device memory: read from the driver, and not kept by a service that answers many requests."""

from collections import Counter
from itertools import count, islice

import numpy as np
import pytest

from amiss_serving.runtimes import RuntimeKind
from bench.serving.device_memory import MB, device_memory
from bench.serving.gpu_checks import KINDS, MOST_GROWTH_MB
from bench.serving.mixed_sizes import MOST_ROWS, memory_while_asked, requests_of
from bench.serving.models import Model

from .conftest import HAS_CUDA, needs_cuda

Served = tuple[Model, Model]
WARM_UP, REQUESTS = 3_000, 10_000


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_requests_leave_no_device_memory_behind(
    served_models: Served, kind: RuntimeKind
) -> None:
    """After 3,000 requests of mixed sizes to both detectors, 10,000 more take no further memory.

    The allowance is for what a late pair of thread and session still makes.
    """
    with device_memory("cuda:0") as taken:
        options = ("--device", "cuda:0", "--runtime", kind)
        ready_mb, warm_mb, after_mb = memory_while_asked(
            served_models, taken, options=options, counts=(WARM_UP, REQUESTS)
        )
    assert 0 < ready_mb <= warm_mb
    assert after_mb - warm_mb <= MOST_GROWTH_MB


@pytest.mark.skipif(HAS_CUDA, reason="this machine has a CUDA device")
def test_without_a_driver_there_is_no_memory_to_read() -> None:
    """The reading says what is missing, before anything is measured."""
    with pytest.raises(RuntimeError, match=r"driver|CUDA error"), device_memory("cuda:0"):
        pass


def test_requests_are_of_all_sizes_and_both_kinds() -> None:
    """Detectors take turns, rows lie between 1 and 256, mostly few, a fourth wants everything."""
    asked = list(islice(requests_of(["a", "b"]), 2000))
    assert Counter(name for name, _, _ in asked) == {"a": 1000, "b": 1000}
    sizes = np.array([n for _, n, _ in asked])
    assert sizes.min() == 1
    assert MOST_ROWS - 6 <= sizes.max() <= MOST_ROWS
    assert np.median(sizes) < 20
    assert 400 < sum(reconstruct for _, _, reconstruct in asked) < 600


def test_memory_is_read_when_ready_and_after_each_count(served_models: Served) -> None:
    """The first reading, before the service starts, is subtracted from the others."""
    read = count(7 * MB, step=3 * MB)
    options = ("--device", "cpu")
    taken_mb = memory_while_asked(
        served_models, lambda: next(read), options=options, counts=(40, 60)
    )
    assert taken_mb == [3, 6, 9]
