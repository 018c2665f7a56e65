"""Every option of `amiss torchserve`, in one place, as plain values with their units."""

from dataclasses import dataclass, fields

from amiss_export.errors import BadInput
from amiss_serving.settings import LOG_LEVELS
from amiss_serving.torchserve.config import Options, Ports

_MOST_PORT = 65535


@dataclass(frozen=True)
class TorchServeSettings:
    """How TorchServe runs. It and our own page listen on loopback only.

    Args:
        models: Folder of bundles, models/<name>/<version>/; of each name the version labelled
            stable is served, else the newest.
        onnx: Run model.onnx in ONNX Runtime inside TorchServe's workers, not TorchScript.
        state: Folder in which a private one, torchserve, is made for archives, configuration and
            keys; a temporary one by default.
        workers: Processes for each model.
        device: auto (CUDA when there is a device, else CPU), cpu, or cuda:0.
        threads: CPU threads inside one run of a model.
        http_port: Port of TorchServe's HTTP inference API; 0 takes a free one, here and below.
        management_port: Port of its management API.
        torchserve_metrics_port: Port of its own Prometheus page.
        grpc_port: Port of its gRPC inference API.
        grpc_management_port: Port of its gRPC management API.
        metrics_port: Port of our page: /metrics, /healthz and /readyz.
        token_expiration_min: Minutes that a key of TorchServe's is valid; the key file gets a new
            one at half of them, and the old one is refused from then on.
        job_queue_size: Requests that may wait for one model, beyond which TorchServe answers 503.
        batch_size: Requests that one run of a model gets at most.
        batch_delay_ms: Milliseconds to wait for more requests before a run, 1 or more.
        response_timeout_s: Seconds after which TorchServe gives up on a run and its worker.
        startup_timeout_s: Seconds that a worker may take to load its model.
        log_level: Least level that is logged: debug, info, warning or error.
    """

    models: str = "models"
    onnx: bool = False
    state: str | None = None
    workers: int = 1
    device: str = "auto"
    threads: int = 1
    http_port: int = Ports.http
    management_port: int = Ports.management
    torchserve_metrics_port: int = Ports.metrics
    grpc_port: int = Ports.grpc
    grpc_management_port: int = Ports.grpc_management
    metrics_port: int = 8002
    token_expiration_min: float = Options.token_expiration_min
    job_queue_size: int = Options.job_queue_size
    batch_size: int = Options.batch_size
    batch_delay_ms: int = Options.batch_delay_ms
    response_timeout_s: int = Options.response_timeout_s
    startup_timeout_s: int = Options.startup_timeout_s
    log_level: str = "info"

    def validate(self) -> None:
        """Raise BadInput naming the first value that cannot be used."""
        if self.log_level not in LOG_LEVELS:
            raise BadInput(f"log_level must be one of {LOG_LEVELS}, got {self.log_level!r}")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_port"):
                if not 0 <= value <= _MOST_PORT:
                    raise BadInput(f"{field.name} must lie between 0 and {_MOST_PORT}, got {value}")
            elif isinstance(value, int | float) and not isinstance(value, bool) and value <= 0:
                raise BadInput(f"{field.name} must be > 0, got {value}")
        given = [getattr(self, f.name) for f in fields(self) if f.name.endswith("_port")]
        taken = [port for port in given if port]
        if len(set(taken)) < len(taken):
            raise BadInput(f"the ports must differ, got {given}; 0 takes a free one")

    def options(self, device: str) -> Options:
        """What TorchServe is told, with the device that was chosen."""
        return Options(
            workers=self.workers,
            device=device,
            threads=self.threads,
            batch_size=self.batch_size,
            batch_delay_ms=self.batch_delay_ms,
            job_queue_size=self.job_queue_size,
            response_timeout_s=self.response_timeout_s,
            startup_timeout_s=self.startup_timeout_s,
            token_expiration_min=self.token_expiration_min,
        )

    def ports(self) -> Ports:
        """Where TorchServe listens."""
        return Ports(
            http=self.http_port,
            management=self.management_port,
            metrics=self.torchserve_metrics_port,
            grpc=self.grpc_port,
            grpc_management=self.grpc_management_port,
        )
