"""TorchServe's configuration: fenced, bounded and quiet. Two files in a private folder."""

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from amiss_serving.sockets import listen_tcp
from amiss_serving.torchserve.archives import Archive

HOST = "127.0.0.1"
PROPERTIES, LOG_CONFIG = "config.properties", "log4j2.xml"
_OWNER_ONLY = 0o600
_NOTHING = "^$"  # a pattern that no URL matches


@dataclass(frozen=True)
class Ports:
    """Where TorchServe listens, on loopback; 0 takes a free one each time that it starts."""

    http: int = 8080
    management: int = 8081
    metrics: int = 8082
    grpc: int = 7070
    grpc_management: int = 7071

    def chosen(self) -> "Ports":
        """The same with free ports in the place of zeros. Another process may take them first.

        Raises BadInput, naming the option, for a port that is in use.
        """
        with ExitStack() as stack:  # all at once, so that the free ones differ
            return Ports(**{name: _held(name, port, stack) for name, port in asdict(self).items()})


ANY_PORTS = Ports(0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Options:
    """How TorchServe runs the models.

    workers: processes for each model. device: 'cpu', or 'cuda:N'. threads: CPU threads inside one
    run of a model. batch_size: requests that one run of a handler gets at most.
    batch_delay_ms: how long it waits for more, where batch_size is over 1; >= 1, as TorchServe
    makes 100 of 0. job_queue_size: requests that may wait for one model, beyond which TorchServe
    answers 503. response_timeout_s: after which it gives up on a run, startup_timeout_s on a start.
    token_expiration_min: minutes that a key is valid; it is renewed at half of them.
    max_request_bytes, max_response_bytes: of one message, on every door and to the workers.
    """

    workers: int = 1
    device: str = "cpu"
    threads: int = 1
    batch_size: int = 32
    batch_delay_ms: int = 1
    job_queue_size: int = 100
    response_timeout_s: int = 30
    startup_timeout_s: int = 120
    token_expiration_min: float = 60.0
    max_request_bytes: int = 64 * 1024 * 1024
    max_response_bytes: int = 512 * 1024 * 1024


def write_config(
    state: Path, archives: Sequence[Archive], *, options: Options, ports: Ports
) -> None:
    """Write both files into `state`, readable by their owner alone."""
    lines = {**_fence(options), **_addresses(ports), **_limits(options)}
    lines["models"] = json.dumps({a.name: {a.version: _model(a, options)} for a in archives})
    _write(state / PROPERTIES, "".join(f"{key}={value}\n" for key, value in lines.items()))
    _write(state / LOG_CONFIG, _LOG4J)


def _addresses(ports: Ports) -> dict[str, object]:
    return {
        "inference_address": f"http://{HOST}:{ports.http}",
        "management_address": f"http://{HOST}:{ports.management}",
        "metrics_address": f"http://{HOST}:{ports.metrics}",
        "grpc_inference_address": HOST,
        "grpc_inference_port": ports.grpc,
        "grpc_management_address": HOST,
        "grpc_management_port": ports.grpc_management,
    }


def _fence(options: Options) -> dict[str, object]:
    """What keeps others out, and TorchServe from doing more than we ask of it."""
    return {
        "disable_token_authorization": "false",
        "token_expiration_min": options.token_expiration_min,
        "enable_model_api": "false",
        "allowed_urls": _NOTHING,
        "use_env_allowed_urls": "false",
        "enable_envvars_config": "false",
        "install_py_dep_per_model": "false",
        "load_models": "all",
        "metrics_mode": "prometheus",
        "disable_system_metrics": "true",
    }


def _limits(options: Options) -> dict[str, object]:
    return {
        "job_queue_size": options.job_queue_size,
        "default_response_timeout": options.response_timeout_s,
        "default_startup_timeout": options.startup_timeout_s,
        "default_workers_per_model": options.workers,
        "max_request_size": options.max_request_bytes,
        "max_response_size": options.max_response_bytes,
        # Without a number TorchServe takes every device that nvidia-smi lists.
        "number_of_gpu": 0 if options.device == "cpu" else 1,
    }


def _model(archive: Archive, options: Options) -> dict[str, object]:
    return {
        "defaultVersion": True,
        "marName": archive.file,
        "minWorkers": options.workers,
        "maxWorkers": options.workers,
        "batchSize": options.batch_size,
        "maxBatchDelay": options.batch_delay_ms,
        "responseTimeout": options.response_timeout_s,
        "startupTimeout": options.startup_timeout_s,
    }


def _held(name: str, port: int, stack: ExitStack) -> int:
    """The port, or a free one for 0, that nobody else gets until the stack closes."""
    option = f"--{name.replace('_', '-')}-port"
    listener = stack.enter_context(listen_tcp(HOST, port, option=option))
    chosen: int = listener.getsockname()[1]
    return chosen


def _write(path: Path, text: str) -> None:
    with open(path, "w", opener=lambda name, flags: os.open(name, flags, _OWNER_ONLY)) as file:
        file.write(text)


# One JSON object a line on standard output, no files. What would be a line for each request is left
# out; what the workers print is needed to name the cause when one fails.
_LOG4J = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration>
  <Appenders>
    <Console name="out" target="SYSTEM_OUT">
      <PatternLayout alwaysWriteExceptions="false"
        pattern='{"level":"%p","logger":"%c","thread":"%enc{%t}{JSON}","message":"%enc{%m}{JSON}","error":"%enc{%ex{8}}{JSON}"}%n'/>
    </Console>
  </Appenders>
  <Loggers>
    <Logger name="ACCESS_LOG" level="off"/>
    <Logger name="TS_METRICS" level="off"/>
    <Logger name="MODEL_METRICS" level="off"/>
    <Logger name="MODEL_LOG" level="info">
      <RegexFilter regex="Backend received inference.*" onMatch="DENY" onMismatch="NEUTRAL"/>
    </Logger>
    <Logger name="org.pytorch.serve.wlm.WorkerThread" level="info">
      <RegexFilter regex="Looping.*|Backend response time.*" onMatch="DENY" onMismatch="NEUTRAL"/>
    </Logger>
    <Logger name="io.netty" level="error"/>
    <Root level="warn"><AppenderRef ref="out"/></Root>
  </Loggers>
</Configuration>
"""
