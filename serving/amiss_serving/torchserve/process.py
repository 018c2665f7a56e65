"""TorchServe as a part of our own process: fenced, watched, restarted, and never outliving us."""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from amiss_serving.errors import NotReady
from amiss_serving.torchserve.archives import read_store
from amiss_serving.torchserve.config import HOST, Options, Ports
from amiss_serving.torchserve.java import find_java
from amiss_serving.torchserve.keys import KEY_FILE
from amiss_serving.torchserve.run import Run
from amiss_serving.torchserve.supervisor import Supervisor


def _ignore(_: str) -> None:
    return


class TorchServe:
    """TorchServe with every archive of a folder. Start it once, ask it from any thread, stop it.

    store: folder of .mar files, read now. state: folder for its configuration, keys and sockets,
    made private (0700); None takes a temporary one, removed at the end. ports: 0 takes a free one,
    another one after TorchServe died, so read the addresses when you connect.
    on_restart(model): a worker took the place of one that died, for each such worker.
    on_lost(model): its last live worker died. TorchServe lets requests that wait for one hang: give
    them up. Both are called by the thread that watches, within a second, and must not block.

    Raises BadInput and BundleRefused for a store that cannot be served and without Java.
    """

    def __init__(
        self,
        store: Path,
        state: Path | None = None,
        *,
        options: Options | None = None,
        ports: Ports | None = None,
        on_restart: Callable[[str], None] = _ignore,
        on_lost: Callable[[str], None] = _ignore,
    ) -> None:
        self.archives = read_store(store)
        self._java = find_java()
        self._store = store
        self._is_state_ours = state is None
        self._state = (state or Path(tempfile.mkdtemp(prefix="amiss-ts-"))).resolve()
        self._options = options or Options()
        self._ports = ports or Ports()
        self._supervisor = Supervisor(
            self._launch,
            self.archives,
            workers=self._options.workers,
            revive_s=self._options.startup_timeout_s,
            on_restart=on_restart,
            on_lost=on_lost,
        )

    def start(self, timeout_s: float = 180.0) -> None:
        """Return when every model has a live worker.

        Raises LoadFailed with what the worker or TorchServe printed when one does not come up, and
        BadInput when TorchServe is not installed.
        """
        try:
            self._supervisor.start(timeout_s)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End TorchServe and all its workers; return when nothing is left, after some 5 s."""
        self._supervisor.stop()
        if self._is_state_ours:
            shutil.rmtree(self._state, ignore_errors=True)

    def check_ready(self, model: str | None = None) -> None:
        """Return when every model, or the one named, has a live worker; raise NotReady else."""
        self._running()
        now = time.monotonic()
        for name, workers in self._supervisor.workers.items():
            if model in (None, name) and not workers.alive:
                raise NotReady(
                    f"detector {name!r} has had no live TorchServe worker for "
                    f"{workers.none_for(now):.0f} s; one is being started, try again"
                )

    def live_workers(self, model: str) -> int:
        """How many workers of the model are alive, as of the last half second."""
        return len(self._supervisor.workers[model].alive)

    def inference_key(self) -> str:
        """The key to send as `authorization: Bearer KEY`, over HTTP and gRPC.

        Ask for it at each request: when it is renewed, the one before is refused from then on (HTTP
        400 InvalidKeyException, gRPC PERMISSION_DENIED). So when refused, ask once more.
        """
        return self._running().keys.inference()

    @property
    def key_file(self) -> Path:
        """Where TorchServe keeps its keys, readable by their owner; those in it are valid."""
        return self._state / KEY_FILE

    @property
    def http_address(self) -> str:
        """HOST:PORT of its HTTP inference API. Raises NotReady when it does not run."""
        return f"{HOST}:{self._running().ports.http}"

    @property
    def grpc_address(self) -> str:
        """HOST:PORT of its gRPC inference API. Raises NotReady when it does not run."""
        return f"{HOST}:{self._running().ports.grpc}"

    @property
    def metrics_address(self) -> str:
        """HOST:PORT of its own Prometheus page. Raises NotReady when it does not run."""
        return f"{HOST}:{self._running().ports.metrics}"

    def _launch(self) -> Run:
        return Run(
            self._store,
            self._state,
            archives=self.archives,
            options=self._options,
            ports=self._ports,
            java=self._java,
            is_state_ours=self._is_state_ours,
        )

    def _running(self) -> Run:
        run = self._supervisor.run
        if run is None:
            raise NotReady("TorchServe is not running")
        return run
