"""Amiss as `amiss serve` starts it, one compute thread."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from .. import doors
from ..models import NAME, Model
from ..processes import answers, running, wait_until
from .base import HOST, Peer, Server, free_ports, samples

# Callers that h2load leaves behind when its time is up count as cancelled; /readyz has no model.
FAILED = rf'amiss_requests_total\{{code="(?!OK|200|CANCELLED|499).*model="{NAME}"'


class Amiss(Peer):
    name = "Amiss"
    version = version("amiss")

    @contextmanager
    def start(self, model: Model, scratch: Path) -> Iterator[Server]:
        http, grpc, metrics = free_ports(3)
        command = [sys.executable, "-m", "amiss_cli.main", "serve", "--models", model.models]
        command += ["--http-port", http, "--grpc-port", grpc, "--metrics-port", metrics]
        options = ["--threads", 1, "--device", "cpu", "--log-level", "warning"]
        with running([*command, *options], log=scratch / "amiss.log", cwd=scratch) as tree:
            wait_until(lambda: answers(f"http://{HOST}:{http}/readyz"), tree)
            page = f"http://{HOST}:{metrics}/metrics"
            yield Server(
                tree,
                (
                    doors.oip_grpc(f"{HOST}:{grpc}"),
                    doors.oip_http(f"{HOST}:{http}"),
                    doors.amiss_v1(f"{HOST}:{grpc}"),
                ),
                prepare=lambda _: "as it comes, 1 thread",
                failures=lambda: samples(page, FAILED),
            )
