"""Who watches TorchServe: sees dead workers within a second, and starts anew what stays dead.

TorchServe itself replaces a worker that died, after 1, 1, 2, 3, 5, ... seconds, and gives up after
five minutes. Its /ping says Healthy without any worker, so we look at the workers.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from amiss_export.errors import AmissError
from amiss_serving.errors import LoadFailed
from amiss_serving.torchserve.archives import Archive
from amiss_serving.torchserve.management import NoSuchModel, Worker
from amiss_serving.torchserve.run import Run
from amiss_serving.torchserve.workers import Workers

_LOOK_S = 0.5
_BACK_OFF_LIMIT_S = 5.0  # of TorchServe's own, while requests wait in its queue
_START_LOOK_S = 0.1
_SILENT_S = 20.0  # of the management port, after which TorchServe is started anew
_BACKOFF_S, _MOST_BACKOFF_S = 1.0, 30.0  # before it is
_PORT_TAKEN = "Address already in use"
_STARTS = 3  # tries, when somebody takes a free port before TorchServe does
logger = logging.getLogger(__name__)


class Supervisor:
    """Keeps one TorchServe running, from `start` to `stop`.

    launch: starts TorchServe. workers: of each model there should be. revive_s: seconds that a
    worker may take to come up, after which its model gets new ones; while none is coming up and
    TorchServe bides its time, five are enough.
    on_restart(model), on_lost(model): see TorchServe.
    """

    def __init__(
        self,
        launch: Callable[[], Run],
        archives: Sequence[Archive],
        *,
        workers: int,
        revive_s: float,
        on_restart: Callable[[str], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self.run: Run | None = None
        self.workers = {a.name: Workers(workers, now=time.monotonic()) for a in archives}
        self._launch = launch
        self._archives = archives
        self._expected = workers
        self._revive_s = revive_s
        self._on_restart = on_restart
        self._on_lost = on_lost
        self._backoff_s = _BACKOFF_S
        self._revived: dict[str, float] = {}  # when, by model
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="torchserve", daemon=True)

    def start(self, timeout_s: float) -> None:
        """Return when every model has a live worker, which are watched from then on.

        Raises LoadFailed when one has none in time, or its first one dies.
        """
        until = time.monotonic() + timeout_s
        for tries_left in reversed(range(_STARTS)):
            self.run = self._launch()
            if self._come_up(self.run, until, may_fail=tries_left > 0):
                break
        self._thread.start()

    def stop(self) -> None:
        """End TorchServe; return when nothing of it is left."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()
        if self.run is not None:
            self.run.child.stop()
        self.run = None

    def _come_up(self, run: Run, until: float, *, may_fail: bool) -> bool:
        """True when every model has a live worker; False when a port was taken, if that may be."""
        while True:
            for archive in self._archives:
                self._compare(archive, _first_workers(run, archive))
            waiting = [a for a in self._archives if not self.workers[a.name].alive]
            if not waiting:
                return True
            if run.child.exit_code() is not None:
                run.child.stop()
                cause = run.output.own_cause()
                if may_fail and _PORT_TAKEN in cause:
                    return False
                raise LoadFailed(f"TorchServe ended instead of starting: {cause}")
            for archive in waiting:
                _check(run, archive, is_late=time.monotonic() > until)
            self._ending.wait(_START_LOOK_S)

    def _watch(self) -> None:
        while not self._ending.wait(_LOOK_S):
            try:
                if self.run is not None:
                    self._look(self.run)
            except Exception:  # of a callback, or of a disk that is full: the next look may go well
                logger.exception("watching TorchServe failed, and goes on")

    def _look(self, run: Run) -> None:
        code = run.child.exit_code()
        if code is not None:
            self._start_anew(run, f"it ended with exit code {code}: {run.output.own_cause()}")
            return
        self._renew_keys(run)
        for archive in self._archives:
            self._compare(archive, _found(run, archive))
        if time.monotonic() - run.last_answer > _SILENT_S:
            self._start_anew(run, f"its management port has not answered for {_SILENT_S:.0f} s")
        elif all(workers.alive for workers in self.workers.values()):
            self._backoff_s = _BACKOFF_S
        else:
            self._revive(run)

    def _compare(self, archive: Archive, found: Sequence[Worker]) -> None:
        """Count, log and tell what has changed about the model's workers."""
        now = time.monotonic()
        change = self.workers[archive.name].look(found, now)
        fields = {"detector": archive.name, "version": archive.version}
        if change.lost:
            cause = self.run.output.cause(archive.name, archive.version) if self.run else ""
            logger.error("no live worker", extra={"fields": {**fields, "cause": cause}})
            self._on_lost(archive.name)
        for _ in range(change.restarted):
            logger.warning("worker restarted", extra={"fields": fields})
            self._on_restart(archive.name)

    def _start_anew(self, run: Run, reason: str) -> None:
        logger.error(f"TorchServe is started anew: {reason}")
        for archive in self._archives:  # first: callers wait, and stopping takes seconds
            self._compare(archive, ())
        run.child.stop()
        if self._ending.wait(self._backoff_s):
            return
        self._backoff_s = min(2 * self._backoff_s, _MOST_BACKOFF_S)
        self.run = self._launch()

    def _renew_keys(self, run: Run) -> None:
        try:
            run.keys.renew_due()
        except AmissError as error:  # none yet, or it is too busy: half of their life is left
            logger.debug(f"no new key: {error}")

    def _revive(self, run: Run) -> None:
        """Replace the workers of models that have had none for long."""
        now = time.monotonic()
        for archive in self._archives:
            workers = self.workers[archive.name]
            least_s = self._revive_s if workers.is_starting else _BACK_OFF_LIMIT_S
            waited_s = min(workers.none_for(now), now - self._revived.get(archive.name, 0.0))
            if waited_s < min(least_s, self._revive_s):
                continue
            self._revived[archive.name] = now
            fields = {"detector": archive.name, "version": archive.version}
            logger.error("no worker came up, trying new ones", extra={"fields": fields})
            try:
                run.replace_workers(archive, self._expected)
            except AmissError as error:
                logger.warning(f"TorchServe gave none: {error}", extra={"fields": fields})


def _first_workers(run: Run, archive: Archive) -> Sequence[Worker]:
    """Raises LoadFailed for a model that TorchServe did not load: it never will."""
    try:
        return run.workers(archive)
    except NoSuchModel as error:
        raise _failed(run, archive, run.output.own_cause()) from error


def _found(run: Run, archive: Archive) -> Sequence[Worker]:
    try:
        return run.workers(archive)
    except NoSuchModel:
        return ()


def _check(run: Run, archive: Archive, *, is_late: bool) -> None:
    """Raise LoadFailed when waiting for the model's first worker is, or has become, pointless."""
    if is_late or run.output.deaths(archive.name, archive.version):
        raise _failed(run, archive, run.output.cause(archive.name, archive.version))


def _failed(run: Run, archive: Archive, cause: str) -> LoadFailed:
    printed = run.output.last_lines(archive.name, archive.version)
    fields = {"detector": archive.name, "version": archive.version, "printed": printed}
    logger.error("no worker came up", extra={"fields": fields})
    return LoadFailed(f"detector {archive.name!r} did not come up in TorchServe: {cause}")
