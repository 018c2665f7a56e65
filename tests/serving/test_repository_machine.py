"""Any order of changes, some of them at once: what a name means is always what is wanted."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from amiss_export.bundle import list_versions, read_labels
from amiss_export.errors import AmissError
from amiss_serving.detector import LoadedDetector
from amiss_serving.errors import DetectorNotFound
from amiss_serving.repository import DetectorRepository, Swap

from .conftest import MakeDetector
from .fake_models import FakeModels

NAMES = ("a", "b")
VERSIONS = range(1, 6)
names, versions = st.sampled_from(NAMES), st.sampled_from(VERSIONS)
labels = st.sampled_from(("stable", "canary"))
changes = st.one_of(
    st.tuples(st.just("load"), names),
    st.tuples(st.just("unload"), names),
    st.tuples(st.just("rollback"), names),
    st.tuples(st.just("promote"), names, versions.map(str), labels),
    st.tuples(st.just("refresh")),
)


class Machine(RuleBasedStateMachine):
    """A repository over a folder that changes under it, and a listener that keeps the books."""

    make_detector: ClassVar[MakeDetector]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.models = FakeModels(Path(self.folder.name) / "models", type(self).make_detector)
        self.models.folder.mkdir()
        self.retired: Counter[LoadedDetector] = Counter()
        self.standing: set[LoadedDetector] = set()

    @initialize(there=st.sets(st.tuples(names, versions), min_size=1))
    def start(self, there: set[tuple[str, int]]) -> None:
        for name, version in there:
            self.models.publish(name, version)
        self.repository: DetectorRepository = self.models.repository("explicit")
        self.standing = set(self.repository.detectors())
        self.repository.listeners.append(self.heard)

    def heard(self, swap: Swap) -> None:
        self.retired.update(swap.retired)
        self.standing = (self.standing - set(swap.retired)) | set(swap.added)

    @rule(name=names, version=versions, is_broken=st.booleans())
    def publish(self, name: str, version: int, is_broken: bool) -> None:
        """A version appears, good or broken, or one that is there is replaced."""
        (self.models.broken.add if is_broken else self.models.broken.discard)((name, version))
        if (self.models.folder / name / str(version)).is_dir():
            self.models.touch(name, version)
        else:
            self.models.publish(name, version)

    @rule(name=names, version=versions)
    def remove(self, name: str, version: int) -> None:
        """A version is deleted."""
        self.models.remove(name, version)

    @rule(asked=st.lists(changes, min_size=1, max_size=4))
    def change(self, asked: list[tuple[Any, ...]]) -> None:
        """One change, or several at once. Those that cannot be made say so and no more."""

        async def all_at_once() -> list[Any]:
            started: list[Awaitable[Any]] = []
            for what, *arguments in asked:
                method: Callable[..., Awaitable[Any]] = getattr(self.repository, what)
                started.append(method(*arguments))
            return await asyncio.gather(*started, return_exceptions=True)

        for outcome in self.runner.run(all_at_once()):
            assert not isinstance(outcome, BaseException) or isinstance(outcome, AmissError)

    @rule()
    def settle(self) -> None:
        """After a load without refusals, the newest version and every labelled one serve."""
        for name, on_disk in list_versions(self.models.folder).items():
            try:
                self.runner.run(self.repository.load(name))
            except AmissError:
                continue
            served = {d.version for d in self.repository.detectors() if d.name == name}
            assert served == {max(on_disk), *read_labels(self.models.folder, name).values()}

    @invariant()
    def a_name_means_a_wanted_version_or_says_why_not(self) -> None:
        """Whatever resolves stands, under the label or number asked for; else it is not found."""
        for name in NAMES:
            for asked in ("", "stable", "canary", "previous", *map(str, VERSIONS)):
                try:
                    detector = self.repository.resolve(name, asked)
                except DetectorNotFound:
                    continue
                assert detector in self.standing
                assert detector.name == name
                assert not asked.isdigit() or detector.version == int(asked)
                assert asked in ("", str(detector.version), *detector.labels)

    @invariant()
    def nothing_is_retired_twice_nor_while_it_answers(self) -> None:
        """The books of all swaps add up to what is being served."""
        assert self.standing == set(self.repository.detectors())
        assert not self.standing & set(self.retired)
        assert all(times == 1 for times in self.retired.values())

    @invariant()
    def the_index_agrees(self) -> None:
        """READY are exactly those that answer."""
        ready = {(e.name, e.version) for e in self.repository.index() if e.state == "READY"}
        assert ready == {(d.name, d.version) for d in self.standing}

    def teardown(self) -> None:
        self.runner.close()
        self.folder.cleanup()


def test_any_interleaving_keeps_the_repository_in_order(make_detector: MakeDetector) -> None:
    """No sequence of changes, failures and deletions breaks one of the three invariants."""
    machine = type("Bound", (Machine,), {"make_detector": staticmethod(make_detector)})
    run_machine(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
