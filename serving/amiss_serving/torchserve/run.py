"""One run of TorchServe: its files written, Java started, its workers and keys asked for."""

import importlib.util
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from amiss_export.errors import AmissError, BadInput
from amiss_serving.torchserve.archives import Archive
from amiss_serving.torchserve.child import Child
from amiss_serving.torchserve.config import LOG_CONFIG, PROPERTIES, Options, Ports, write_config
from amiss_serving.torchserve.keys import KEY_FILE, Keys
from amiss_serving.torchserve.management import Management, NoSuchModel, Worker
from amiss_serving.torchserve.output import Output

_MAIN = "org.pytorch.serve.ModelServer"
_SECRETS = frozenset({"AMISS_TOKEN"})  # of our doors: no business of what runs a model
THREADS = "AMISS_THREADS"  # read by the handler
# TorchServe heeds these before our files: TS_CONFIG_FILE alone would take the whole fence away.
_OVERRIDES = ("TS_", "LOG_LOCATION", "METRICS_LOCATION")
_CUDA, _VISIBLE = "cuda:", "CUDA_VISIBLE_DEVICES"
_OWNER_ONLY = 0o700
_MOST_SOCKET_PATH_BYTES = 107  # the kernel's limit
_SOCKET = ".ts.sock.65535"


class Run:
    """TorchServe, started. It has no keys before it has written them."""

    def __init__(
        self,
        store: Path,
        state: Path,
        *,
        archives: Sequence[Archive],
        options: Options,
        ports: Ports,
        java: Path,
        is_state_ours: bool,
    ) -> None:
        """is_state_ours: the folder goes when TorchServe ends, even if we end before."""
        self.ports = ports.chosen()
        self.output = Output()
        self.last_answer = time.monotonic()
        self._keys: Keys | None = None
        self._key_file = state / KEY_FILE
        self._management = Management(self.ports.management)
        state.mkdir(parents=True, exist_ok=True)
        state.chmod(_OWNER_ONLY)
        scratch = _scratch(state)
        self._key_file.unlink(missing_ok=True)
        write_config(state, archives, options=options, ports=self.ports)
        self.child = Child(
            _command(java, store.resolve(), scratch),
            folder=state,
            environment=_environment(scratch, options),
            remove=[state] if is_state_ours else [scratch, self._key_file],
            take=self.output.take,
        )

    @property
    def keys(self) -> Keys:
        """Its keys. Raises AmissError while it has written none."""
        if self._keys is None:
            self._keys = Keys(self._key_file, self._management.renew)
        return self._keys

    def workers(self, archive: Archive) -> tuple[Worker, ...]:
        """The model's workers; none while the management port does not answer.

        Raises NoSuchModel when TorchServe runs without the model.
        """
        try:
            found = self._management.workers(archive.name, self.keys.management())
        except NoSuchModel:
            self.last_answer = time.monotonic()
            raise
        except AmissError:  # it is starting, or busy, or gone: the supervisor judges by the time
            return ()
        self.last_answer = time.monotonic()
        return found

    def replace_workers(self, archive: Archive, workers: int) -> None:
        """Have TorchServe forget the model's workers, and its waiting for them, and start new ones.

        Raises AmissError when it does not answer.
        """
        for number in (0, workers):
            self._management.scale(archive.name, number, self.keys.management())


def _scratch(state: Path) -> Path:
    """A folder for what TorchServe unpacks and for its workers' sockets, emptied by the guard."""
    scratch = state / "tmp"
    if len(os.fsencode(scratch / _SOCKET)) > _MOST_SOCKET_PATH_BYTES:
        raise BadInput(f"the state folder {state} has too long a path for Unix sockets; shorten it")
    scratch.mkdir(mode=_OWNER_ONLY, exist_ok=True)
    return scratch


def _command(java: Path, store: Path, scratch: Path) -> list[str]:
    """What the `torchserve` launcher would start."""
    home = _package().parent
    return [
        str(java),
        f"-Dmodel_server_home={home}",
        f"-Dlog4j2.configurationFile={LOG_CONFIG}",
        f"-Djava.io.tmpdir={scratch}",
        "-XX:-UsePerfData",  # or it leaves a file in /tmp
        "-XX:+ExitOnOutOfMemoryError",  # rather started again than half alive
        "-cp",
        str(home / "ts" / "frontend" / "*"),
        _MAIN,
        *("--python", sys.executable),
        *("-f", PROPERTIES),
        *("-s", str(store)),
        "-ncs",  # no snapshots of its configuration
    ]


def _package() -> Path:
    """The folder of the installed TorchServe, which is not imported."""
    spec = importlib.util.find_spec("ts")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if Path(place, "frontend", "model-server.jar").is_file():
            return Path(place)
    raise BadInput("TorchServe is not installed; pip install 'amiss[torchserve]'")


def _environment(scratch: Path, options: Options) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not _is_left_out(key)}
    own = {"TMPDIR": str(scratch), "TEMP": str(scratch), THREADS: str(options.threads)}
    if options.device.startswith(_CUDA):
        own[_VISIBLE] = _visible(int(options.device.removeprefix(_CUDA)), kept.get(_VISIBLE))
    return {**kept, **own}


def _visible(index: int, visible: str | None) -> str:
    """The one device that workers see, by its name among those that we see."""
    return visible.split(",")[index] if visible else str(index)


def _is_left_out(variable: str) -> bool:
    return variable in _SECRETS or variable.startswith(_OVERRIDES)
