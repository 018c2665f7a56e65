"""Every option of `amiss serve`, in one place, as plain values with their units."""

import ipaddress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from amiss_export.errors import BadInput

PORTS = ("http_port", "grpc_port", "metrics_port")
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class Settings:
    """How the service runs.

    Args:
        models: Folder of bundles, models/<name>/<version>/.
        host: Address to listen on. Beyond loopback a token (or insecure) is needed.
        http_port: Port of HTTP; 0 takes a free one.
        grpc_port: Port of gRPC; 0 takes a free one.
        metrics_port: Port of the Prometheus page /metrics; 0 takes a free one.
        runtime: What runs the models.
        device: auto (CUDA when there is a device, else CPU), cpu, or cuda:0.
        threads: CPU threads inside one run of a model.
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
        log_level: Least level that is logged: debug, info, warning or error.
    """

    models: str = "models"
    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    runtime: Literal["onnx"] = "onnx"
    device: str = "auto"
    threads: int = 1
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
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def validate(self) -> None:
        """Nothing, when they can be served. Raises BadInput naming the key and the value."""
        if Path(self.models).exists() and not Path(self.models).is_dir():
            raise BadInput(f"models must be a folder of bundles, got the file {self.models}")
        self._check_ports()
        self._check_bounds()
        if self.log_level not in LOG_LEVELS:
            raise BadInput(f"log_level must be one of {LOG_LEVELS}, got {self.log_level!r}")
        if self.runtime != "onnx":
            raise BadInput(f"runtime must be 'onnx', got {self.runtime!r}")
        token = self.read_token()
        if token is None and not self.insecure and not is_loopback(self.host):
            raise BadInput(
                f"host {self.host!r} can be reached from other machines and no token is set; set "
                "AMISS_TOKEN or token_file, or pass --insecure to serve everyone"
            )

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
        taken = [port for port in ports.values() if port != 0]
        if len(set(taken)) < len(taken):
            raise BadInput(f"the ports must differ, got {ports}; 0 takes a free one")

    def _check_bounds(self) -> None:
        at_least_zero = ("batch_delay_ms", "drain_s")
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in PORTS or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if not (value >= 0 if item.name in at_least_zero else value > 0):
                least = ">= 0" if item.name in at_least_zero else "> 0"
                raise BadInput(f"{item.name} must be {least}, got {value}")
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
