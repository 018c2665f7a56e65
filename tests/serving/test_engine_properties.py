"""Whatever comes, goes, fails or is swapped: answers are never mixed up."""

import asyncio
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from amiss_serving.detector import Scored

from .asking import ask, make_engine
from .conftest import POISON, FakeRuntime, MakeDetector


@dataclass
class Shifted(FakeRuntime):
    """A later version, whose scores differ from the first one's by a fixed amount."""

    by: float = 0.0

    def run(self, x: NDArray[Any], outputs: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        values = super().run(x, outputs)
        return values | {"score": values["score"] + np.float32(self.by)}


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=12),
    max_batch_rows=st.integers(1, 9),
    asked=st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_row_i_gets_row_is_answer(
    make_detector: MakeDetector, sizes: list[int], max_batch_rows: int, asked: list[bool]
) -> None:
    """Whatever is batched with whatever, row i's answer and reconstruction belong to row i."""
    starts = np.cumsum([0, *sizes])

    async def all_of_them() -> list[Scored]:
        engine = make_engine(max_batch_rows=max_batch_rows)
        detector = make_detector(FakeRuntime())
        requests = [
            ask(engine, detector, *range(start, start + size), reconstruct=want)
            for start, size, want in zip(starts, sizes, asked, strict=False)
        ]
        answers = await asyncio.gather(*requests)
        await engine.close()
        return answers

    for start, size, want, answer in zip(
        starts, sizes, asked, asyncio.run(all_of_them()), strict=False
    ):
        mine = np.arange(start, start + size)
        np.testing.assert_array_equal(answer.verdicts.score, mine)
        assert (answer.reconstruction is not None) == want
        if answer.reconstruction is not None:
            np.testing.assert_array_equal(answer.reconstruction[:, 0], mine + 1)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("ask"), st.integers(1, 7)),
            st.tuples(st.just("poison"), st.integers(1, 7)),
            st.tuples(
                st.sampled_from(["cancel", "swap", "hold", "free", "turn"]), st.integers(0, 9)
            ),
        ),
        max_size=30,
    ),
    st.integers(1, 3),
)
def test_no_interleaving_mixes_answers_up(
    make_detector: MakeDetector, script: list[tuple[str, int]], parallel_runs: int
) -> None:
    """Whoever comes, goes, fails or is swapped out meanwhile, each request gets its own rows'
    answer from the version it asked, or its own error."""

    async def play() -> None:
        engine = make_engine(max_batch_rows=5, parallel_runs=parallel_runs)
        runtimes = [FakeRuntime()]
        detector = make_detector(runtimes[0])
        asked: list[tuple[asyncio.Task[Scored], list[float]]] = []
        for step, number in script:
            if step in ("ask", "poison"):
                first = [1000.0 * len(runtimes) + 10 * len(asked) + i for i in range(number)]
                if step == "poison":
                    first[-1] = POISON
                asked.append((ask(engine, detector, *first), first))
            elif step == "cancel" and asked:
                asked[number % len(asked)][0].cancel()
            elif step == "swap":
                engine.retire(detector)
                runtimes.append(Shifted(by=float(len(runtimes))))
                detector = make_detector(runtimes[-1])
            elif step == "hold":
                runtimes[-1].free.clear()
            elif step == "free":
                runtimes[-1].free.set()
            else:
                await asyncio.sleep(0.001)
        for runtime in runtimes:
            runtime.free.set()
        answers = await asyncio.gather(*(task for task, _ in asked), return_exceptions=True)
        for answer, (task, first) in zip(answers, asked, strict=True):
            if isinstance(answer, Scored):
                version = 0.0 if first[0] < 2000 else float(int(first[0] // 1000) - 1)
                assert answer.verdicts.score.tolist() == [value + version for value in first]
            elif not task.cancelled():
                assert POISON in first
        await engine.close()

    asyncio.run(play())
