"""A bundle in a TorchServe process of its own, asked over gRPC on loopback."""

import math
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import grpc
import msgspec
import numpy as np
from numpy.typing import NDArray

from amiss.torchserve import inference_pb2 as pb
from amiss.torchserve.inference_pb2_grpc import InferenceAPIsServiceStub
from amiss_export.bundle import Bundle
from amiss_export.errors import AmissError
from amiss_export.to_mar import write_mar
from amiss_serving.devices import Device, driver_device_count, pick_device
from amiss_serving.errors import NotReady
from amiss_serving.runtime import Runtime
from amiss_serving.torchserve import HANDLER
from amiss_serving.torchserve.batch import Failure
from amiss_serving.torchserve.config import ANY_PORTS, Options
from amiss_serving.torchserve.process import TorchServe
from amiss_serving.torchserve.requests import OUTPUTS, SHAPE, TENSOR

_GONE = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,  # its word for a worker that died under a request
}
_MAX_BYTES = 2**31 - 1  # gRPC's own; what callers may send was judged before
_STALE_KEY = grpc.StatusCode.PERMISSION_DENIED
_CHANNEL = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
)


class _Calls:
    """Calls under way, to be given up together: TorchServe lets those of a dead worker hang."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: set[Any] = set()

    @contextmanager
    def under_way(self, call: Any) -> Iterator[None]:
        """Remembers the call inside `with`."""
        with self._lock:
            self._calls.add(call)
        try:
            yield
        finally:
            with self._lock:
                self._calls.discard(call)

    def give_up(self, _: str) -> None:
        """Cancel all of them."""
        with self._lock:
            calls = list(self._calls)
        for call in calls:
            call.cancel()


class _Line:
    """The connection to TorchServe, which may start anew on another port."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._address = ""
        self._channel: grpc.Channel | None = None

    def to(self, address: str) -> InferenceAPIsServiceStub:
        """A stub for that address."""
        with self._lock:
            if self._channel is None or address != self._address:
                self.close()
                self._channel = grpc.insecure_channel(address, _CHANNEL)
                self._address = address
                self._stub = InferenceAPIsServiceStub(self._channel)
            return self._stub

    def close(self) -> None:
        """End the connection, if there is one."""
        if self._channel is not None:
            self._channel.close()


class TorchServeRuntime(Runtime):
    """A bundle's TorchScript in TorchServe, which ends when this object is let go of.

    A run that a dead worker leaves behind fails at once, and so does every other until TorchServe
    has a live one again.
    """

    is_remote: ClassVar[bool] = True

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "auto",
        workers: int = 1,
        threads: int = 1,
        on_restart: Callable[[str, int], None] | None = None,
    ) -> None:
        """on_restart(name, version): a new worker took the place of one that died.

        Raises LoadFailed when no worker comes up, BadInput where TorchServe, Java or the device is
        not there.
        """
        self.device = choose_device(device).name
        self._name = bundle.name
        self._version = str(bundle.version)
        self._calls = _Calls()
        self._line = _Line()
        with ExitStack() as stack:
            store = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="amiss-mar-")))
            write_mar(bundle, store / f"{bundle.name}.mar", handler=HANDLER)
            version = bundle.version
            self._server = TorchServe(
                store,
                options=Options(
                    workers=workers,
                    device=self.device,
                    threads=threads,
                    batch_size=1,  # a request is a batch already: the engine has made it
                    max_request_bytes=_MAX_BYTES,
                    max_response_bytes=_MAX_BYTES,
                ),
                ports=ANY_PORTS,
                on_restart=lambda name: on_restart(name, version) if on_restart else None,
                on_lost=self._calls.give_up,
            )
            stack.callback(self._server.stop)
            stack.callback(self._line.close)
            self._server.start()
            self._end = weakref.finalize(self, _end, stack.pop_all().close)

    def run(self, x: NDArray[Any], outputs: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        """The named outputs for a batch x (n, ...), each (n, ...) float32.

        Raises NotReady while there is no live worker, and when the last one dies meanwhile.
        """
        shapes = {output: (len(x),) if output == "score" else x.shape for output in outputs}
        little_endian = np.ascontiguousarray(x, x.dtype.newbyteorder("<"))
        fields = {
            TENSOR: little_endian.tobytes(),
            SHAPE: ",".join(map(str, x.shape)).encode(),
            OUTPUTS: ",".join(outputs).encode(),
        }
        return _values(self._predict(fields), shapes)

    def close(self) -> None:
        """End TorchServe; some seconds."""
        if detached := self._end.detach():
            _, _, (end,), _ = detached
            end()

    def check_ready(self) -> None:
        """Nothing, while there is a live worker. Raises NotReady with the reason."""
        self._server.check_ready(self._name)

    def _predict(self, fields: dict[str, bytes]) -> bytes:
        """What the handler answers; asked once more when the key was renewed on the way."""
        request = pb.PredictionsRequest(
            model_name=self._name, model_version=self._version, input=fields
        )
        for is_last in (False, True):
            try:
                return self._ask(request)
            except grpc.FutureCancelledError as error:  # by ourselves, when the worker died
                raise NotReady(
                    f"the TorchServe worker of {self._name!r} died; try again"
                ) from error
            except grpc.RpcError as error:
                code = error.code()
                if code is _STALE_KEY and not is_last:
                    continue
                said = (error.details() or "").partition("\n")[0]  # a Java class comes after it
                text = f"TorchServe could not run {self._name}@{self._version}: {said}"
                raise (NotReady if code in _GONE else AmissError)(text) from error
        raise AssertionError("the last try returns or raises")

    def _ask(self, request: pb.PredictionsRequest) -> bytes:
        self.check_ready()
        metadata = (
            ("protocol", "gRPC"),
            ("authorization", f"Bearer {self._server.inference_key()}"),
        )
        predictions = self._line.to(self._server.grpc_address).Predictions
        call = predictions.future(request, metadata=metadata, timeout=Options.response_timeout_s)
        with self._calls.under_way(call):
            response: pb.PredictionResponse = call.result()
        return response.prediction


def choose_device(asked: str) -> Device:
    """The device for 'auto', 'cpu' or 'cuda:0'. Raises BadInput when it is not there.

    Whether PyTorch can use it is seen to by the worker; here it is not loaded for that.
    """
    return pick_device(asked, there=driver_device_count, works=lambda: True)


def _values(answer: bytes, shapes: dict[str, tuple[int, ...]]) -> dict[str, NDArray[np.float32]]:
    """The outputs one after another. Raises AmissError where the answer is an error instead."""
    sizes = [math.prod(shape) for shape in shapes.values()]
    if len(answer) != 4 * sum(sizes):
        raise AmissError(f"TorchServe: {_error_in(answer)}")
    parts = np.split(np.frombuffer(answer, "<f4"), np.cumsum(sizes)[:-1])
    return {
        name: part.reshape(shape).astype(np.float32)
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }


def _error_in(answer: bytes) -> str:
    try:
        return msgspec.json.decode(answer, type=Failure).error
    except msgspec.DecodeError:
        return f"unexpected answer of {len(answer)} bytes"


def _end(close: Callable[[], None]) -> None:
    """Call it, beside everything else while the process lives: ending TorchServe takes seconds."""
    if threading.main_thread().is_alive():
        threading.Thread(target=close, name="torchserve-end").start()
    else:  # the process ends, and waits for no new thread
        close()
