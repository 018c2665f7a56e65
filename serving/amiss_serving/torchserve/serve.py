"""`amiss torchserve`: the bundles of a folder in a fenced TorchServe, until a signal ends it."""

import logging
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from amiss_export.bundle import (
    ONNX,
    TORCHSCRIPT,
    Bundle,
    list_versions,
    read_bundle,
    resolve_version,
)
from amiss_export.errors import BadInput, BundleNotFound, BundleRefused
from amiss_export.to_mar import write_mar
from amiss_serving.logs import configure_logs
from amiss_serving.runtimes import choose_device
from amiss_serving.torchserve import HANDLER
from amiss_serving.torchserve.page import WorkerMetrics, build_page, serving_page
from amiss_serving.torchserve.process import TorchServe
from amiss_serving.torchserve.settings import TorchServeSettings
from amiss_serving.versions import reason_of

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_OWN = "torchserve"  # in the state folder, which may be open to others
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listening:
    """Where TorchServe and our own page answer, the file of its keys, and NAME@VERSION served."""

    http: str
    grpc: str
    metrics: str
    key_file: str
    detectors: tuple[str, ...]


class _Ended(BaseException):
    """A signal has asked the process to end. Like KeyboardInterrupt, no error."""


def run(settings: TorchServeSettings, on_ready: Callable[[Listening], None]) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code 0. A second one ends at once.

    on_ready is called once, when every model has a live worker. Raises BadInput when the settings
    cannot be served, LoadFailed when TorchServe does not take a bundle.
    """
    settings.validate()
    configure_logs(settings.log_level)
    for number in _SIGNALS:
        signal.signal(number, _end)
    with suppress(_Ended), serving(settings) as listening:
        logger.info("ready", extra={"fields": asdict(listening)})
        on_ready(listening)
        threading.Event().wait()
    logger.info("stopped")
    return 0


@contextmanager
def serving(settings: TorchServeSettings) -> Iterator[Listening]:
    """Where it all answers, while the block runs. The page does before TorchServe is ready."""
    device = choose_device(settings.device, "torchserve")
    logger.info(str(device))
    bundles = default_bundles(Path(settings.models))
    metrics = WorkerMetrics()
    with ExitStack() as stack:
        state = Path(settings.state, _OWN) if settings.state else None
        store = _store(state, stack)
        for name, bundle in bundles.items():
            model = ONNX if settings.onnx else TORCHSCRIPT
            write_mar(bundle, store / f"{name}.mar", handler=HANDLER, model=model)
        server = TorchServe(
            store,
            state,
            options=settings.options(device.name),
            ports=settings.ports(),
            on_restart=lambda name: metrics.restarts.labels(name, bundles[name].version).inc(),
        )
        for name, bundle in bundles.items():
            metrics.restarts.labels(name, bundle.version)
            live = metrics.live.labels(name, bundle.version)
            live.set_function(partial(server.live_workers, name))
        stack.callback(server.stop)
        page = build_page(metrics, server.check_ready)
        address = stack.enter_context(serving_page(page, settings.metrics_port))
        server.start()
        yield Listening(
            http=server.http_address,
            grpc=server.grpc_address,
            metrics=address,
            key_file=str(server.key_file),
            detectors=tuple(f"{name}@{bundle.version}" for name, bundle in bundles.items()),
        )


def default_bundles(models: Path) -> dict[str, Bundle]:
    """By name, the version that the bare name means; those that are refused are logged, left out.

    Raises BadInput when none is left.
    """
    found = {}
    for name in list_versions(models):
        try:
            found[name] = read_bundle(models, name, resolve_version(models, name))
        except (BundleNotFound, BundleRefused) as error:  # the others serve
            fields = {"detector": name, "reason": reason_of(error, models)}
            logger.error("bundle refused", extra={"fields": fields})  # noqa: TRY400  says it all
    if not found:
        raise BadInput(f"no detector in {models} can be served; train one, or name another folder")
    return found


def _store(state: Path | None, stack: ExitStack) -> Path:
    """An empty folder for the archives: in the state folder, else temporary."""
    if state is None:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="amiss-mar-")))
    store = state / "store"
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir(parents=True)
    return store


def _end(*_: object) -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    raise _Ended
