"""Every option of `amiss serve`, in one place, as plain values with their units."""

import ipaddress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from amiss_export.errors import BadInput

PORTS = ("http_port", "grpc_port", "metrics_port")
MODES = ("none", "poll", "explicit")
RUNTIMES = ("onnx", "torchscript", "torchserve")
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class Settings:
    """How the service runs.

    Args:
        models: Folder of bundles, models/<name>/<version>/.
        repository_mode: none serves what was there at start; poll notices new versions, changed
            labels and removed folders; explicit, after what was there at start, loads and unloads
            by request. Promote and rollback are on with poll or explicit.
        poll_s: Seconds between two looks at the folder, with poll.
        shadow_share: Share of the requests answered by a name's default version that is copied to
            its canary and compared, 0 to 1.
        host: Address to listen on. Beyond loopback a token (or insecure) is needed.
        http_port: Port of HTTP; 0 takes a free one.
        grpc_port: Port of gRPC; 0 takes a free one.
        metrics_port: Port of the Prometheus page /metrics; 0 takes a free one.
        http_socket: Path of a Unix socket that takes the place of the HTTP port. Only the user who
            runs the service may open it (mode 0600).
        grpc_socket: Path of a Unix socket that takes the place of the gRPC port, likewise.
        runtime: What runs the models.
        device: auto (CUDA when there is a device, else CPU), cpu, or cuda:0.
        threads: CPU threads inside one run of a model.
        parallel_runs: Runs of one model that may go on at a time; amiss bench finds what pays.
        stalled_after_s: Seconds after which a run of a model counts as stalled: health turns red.
        warm_up_rows: Batch sizes that a model runs once when it is loaded, so that no caller waits
            for what is made the first time, e.g. [1, 64]. One row is always tried; without any,
            CUDA tries 1, 4, 16, 64, ... up to max_batch_rows.
        gpu_mem_limit_bytes: Most that one session of ONNX Runtime takes of a CUDA device; a model
            has two, for its score alone and with the reconstruction, and if it convolves two for
            each batch size in 1, 4, 16, 64, ...
        provider_option: KEY=VALUE of ONNX Runtime's CUDA provider; may be given more than once.
        token_file: File that holds the bearer token, e.g. a mounted secret.
        token: The bearer token itself; AMISS_TOKEN in the environment.
        insecure: Listen beyond loopback without a token.
        max_batch_rows: Rows that one run of a model takes at most.
        batch_delay_ms: Milliseconds to wait for more rows before a run; 0 takes what is queued.
        max_queue_rows: Rows that may wait for one detector; beyond it callers are told to retry.
        max_request_rows: Rows or images that one request may hold.
        max_body_bytes: Bytes that one request may hold, as sent and once decoded.
        max_image_pixels: Pixels that one picture may hold before it is resized.
        default_timeout_s: Seconds a request may take when its caller sets no deadline.
        drain_s: Seconds that requests under way have to finish after SIGTERM.
        drain_delay_s: Seconds of these in which newcomers are still answered, though readiness
            fails already: time for a load balancer to notice.
        trace_endpoint: Base URL of the OpenTelemetry collector that gets traces (OTLP over HTTP),
            as OTEL_EXPORTER_OTLP_ENDPOINT in the environment; without either there are none.
        log_level: Least level that is logged: debug, info, warning or error.
    """

    models: str = "models"
    repository_mode: Literal["none", "poll", "explicit"] = "none"
    poll_s: float = 5.0
    shadow_share: float = 0.0
    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    http_socket: str | None = None
    grpc_socket: str | None = None
    runtime: Literal["onnx", "torchscript", "torchserve"] = "onnx"
    device: str = "auto"
    threads: int = 1
    parallel_runs: int = 1
    stalled_after_s: float = 4.0
    warm_up_rows: tuple[int, ...] = ()
    gpu_mem_limit_bytes: int | None = None
    provider_option: tuple[str, ...] = ()
    token_file: str | None = None
    token: str | None = field(default=None, repr=False)
    insecure: bool = False
    max_batch_rows: int = 256
    batch_delay_ms: float = 0.0
    max_queue_rows: int = 16_384
    max_request_rows: int = 8_192
    max_body_bytes: int = 64 * 1024 * 1024
    max_image_pixels: int = 50_000_000
    default_timeout_s: float = 30.0
    drain_s: float = 30.0
    drain_delay_s: float = 0.0
    trace_endpoint: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def validate(self) -> None:
        """Nothing, when they can be served. Raises BadInput naming the key and the value."""
        if Path(self.models).exists() and not Path(self.models).is_dir():
            raise BadInput(f"models must be a folder of bundles, got the file {self.models}")
        self._check_ports()
        self._check_bounds()
        if self.log_level not in LOG_LEVELS:
            raise BadInput(f"log_level must be one of {LOG_LEVELS}, got {self.log_level!r}")
        if self.repository_mode not in MODES:
            raise BadInput(f"repository_mode must be one of {MODES}, got {self.repository_mode!r}")
        if self.runtime not in RUNTIMES:
            raise BadInput(f"runtime must be one of {RUNTIMES}, got {self.runtime!r}")
        self.provider_options()
        if any(n < 1 for n in self.warm_up_rows):
            raise BadInput(f"warm_up_rows must be batch sizes >= 1, got {self.warm_up_rows}")
        token = self.read_token()
        if token is None and not self.insecure and not is_loopback(self.host):
            raise BadInput(
                f"host {self.host!r} can be reached from other machines and no token is set; set "
                "AMISS_TOKEN or token_file, or pass --insecure to serve everyone"
            )

    def provider_options(self) -> dict[str, str]:
        """The options given as KEY=VALUE, by key. Raises BadInput."""
        pairs = [option.partition("=") for option in self.provider_option]
        for option, (key, equals, value) in zip(self.provider_option, pairs, strict=True):
            if not (key and equals and value):
                raise BadInput(f"provider_option must be KEY=VALUE, got {option!r}")
        return {key: value for key, _, value in pairs}

    def read_token(self) -> str | None:
        """The bearer token, from `token` or the token file; None when neither is set."""
        if self.token is not None and self.token_file is not None:
            raise BadInput("token and token_file are both set; keep one")
        if self.token_file is None:
            return None if self.token is None else _checked_token(self.token, "token (AMISS_TOKEN)")
        try:
            text = Path(self.token_file).read_text()
        except (OSError, ValueError) as error:
            raise BadInput(f"token_file {self.token_file} cannot be read: {error}") from error
        return _checked_token(text.strip(), f"token_file {self.token_file}")

    def _check_ports(self) -> None:
        ports = {key: int(getattr(self, key)) for key in PORTS}
        for key, port in ports.items():
            if not 0 <= port <= 65535:
                raise BadInput(f"{key} must lie between 0 and 65535, got {port}")
        if self.http_socket and self.http_socket == self.grpc_socket:
            raise BadInput(f"http_socket and grpc_socket must differ, got {self.http_socket} twice")
        taken = [port for port in ports.values() if port != 0]
        if len(set(taken)) < len(taken):
            raise BadInput(f"the ports must differ, got {ports}; 0 takes a free one")

    def _check_bounds(self) -> None:
        at_least_zero = ("batch_delay_ms", "drain_s", "drain_delay_s", "shadow_share")
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in PORTS or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if not (value >= 0 if item.name in at_least_zero else value > 0):
                least = ">= 0" if item.name in at_least_zero else "> 0"
                raise BadInput(f"{item.name} must be {least}, got {value}")
        if self.drain_delay_s > self.drain_s:
            raise BadInput(
                f"drain_delay_s must be <= drain_s ({self.drain_s}), got {self.drain_delay_s}: it "
                "is a part of it"
            )
        if self.shadow_share > 1:
            raise BadInput(f"shadow_share must lie between 0 and 1, got {self.shadow_share}")
        if self.max_queue_rows < self.max_request_rows:
            raise BadInput(
                f"max_queue_rows must be >= max_request_rows ({self.max_request_rows}), got "
                f"{self.max_queue_rows}: the largest request would never fit"
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address. Names other than localhost count as not."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _checked_token(token: str, source: str) -> str:
    if not token:
        raise BadInput(f"{source} is empty; set a token or remove the setting")
    if not all("!" <= character <= "~" for character in token):
        raise BadInput(f"{source} must be printable ASCII without spaces: it travels in a header")
    return token
