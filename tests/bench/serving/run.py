"""The rounds: each server in turn is started, checked, measured and ended, three times over."""

import datetime as dt
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
import psutil

from .closed_loop import Window, closed_loop
from .doors import Door, Request, check
from .models import SEED, Model, digits_model, images
from .open_loop import open_loop, poisson
from .peers import PEERS, Cell, Peer, Server
from .peers.base import FILES

BUSY = 64  # callers whose throughput counts as a server's capacity
ANSWER_BYTES_OFF = 0.05  # from a good answer's: errors over gRPC are HTTP 200 without a body
Record = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is measured: seconds of a window after its warm-up, rounds, rows and callers."""

    peers: tuple[str, ...]
    seconds: float = 2.0
    warm_up_s: float = 0.7
    rounds: int = 3
    rows: tuple[int, ...] = (1, 32)
    in_flight: tuple[int, ...] = (1, 16, BUSY)
    loads: tuple[float, ...] = (0.5, 0.8)
    every_door: bool = True  # or each server's first one alone
    tune_s: float = 0.4  # a window of TorchServe's grids; 0 leaves them out
    heat_s: float = 2.0  # with 64 callers after a start: Java compiles what is used

    def cells(self, *, first_door: bool) -> Iterator[Cell]:
        """In order: for each size the closed loop, then shares of what its busiest cell reached.

        The doors after a server's first one are measured at the ends of the closed loop alone.
        """
        callers = self.in_flight if first_door else (self.in_flight[0], self.in_flight[-1])
        for rows in self.rows:
            yield from (Cell(rows, in_flight=n) for n in callers)
            yield from (Cell(rows, load=share) for share in self.loads if first_door)


def measure_all(plan: Plan, cache: Path) -> dict[str, Any]:
    """What goes into the JSON file: the machine, the plan, one record for a cell and round."""
    cache.mkdir(parents=True, exist_ok=True)
    model = digits_model(cache)
    peers = [PEERS[name]() for name in plan.peers]
    for peer in peers:
        peer.install(cache)
    records: list[Record] = []
    servers: list[Record] = []
    with tempfile.TemporaryDirectory(prefix="amiss-bench-") as folder:
        scratch = Path(folder)
        for peer in peers if plan.tune_s else []:
            peer.tune(model, scratch, seconds=plan.tune_s, rows=plan.rows)
        for number in range(plan.rounds):
            for rows in plan.rows:
                records.append({"round": number, **_bare(model, rows, seconds=plan.seconds)})
            for peer in peers:
                found, footprint = _measured(peer, model, scratch, plan=plan)
                records += [{"round": number, **record} for record in found]
                servers.append({"round": number, **footprint})
    return {
        "machine": machine(),
        "plan": asdict(plan),
        "versions": {peer.name: peer.version for peer in peers},
        "records": records,
        "servers": servers,
    }


def machine() -> dict[str, Any]:
    """Facts that a figure means little without."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")]
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "commit": _output("git", "describe", "--always", "--dirty", "--exclude=*"),
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "h2load": _output("h2load", "--version"),
    }


def _measured(
    peer: Peer, model: Model, scratch: Path, *, plan: Plan
) -> tuple[list[Record], Record]:
    """What `_measure_server` gives, from a second start when the server dies during the first."""
    try:
        return _measure_server(peer, model, scratch, plan=plan)
    except (RuntimeError, OSError, grpc.RpcError) as error:
        print(f"{peer.name} is started once more: {error}", flush=True)
        return _measure_server(peer, model, scratch, plan=plan)


def _measure_server(
    peer: Peer, model: Model, scratch: Path, *, plan: Plan
) -> tuple[list[Record], Record]:
    """The records of one start of the server; its peak memory and what it counted as failed."""
    records: list[Record] = []
    with peer.start(model, scratch) as server:
        for door in server.doors if plan.every_door else server.doors[:1]:
            check(door, model, rows=1)  # the first answers may take a second
            request = door.encode(images(1))
            closed_loop(door, request, in_flight=BUSY, seconds=plan.heat_s, warm_up_s=0)
            capacity: dict[int, float] = {}
            for cell in plan.cells(first_door=door is server.doors[0]):
                record = _measure(server, door, cell, model=model, plan=plan, capacity=capacity)
                if cell.in_flight == BUSY:
                    capacity[cell.rows] = record["requests_per_s"]
                records.append({"server": peer.name, **record})
                print(_line(records[-1]), flush=True)
        peak_rss_mb, failed = server.tree.peak_rss_mb(), server.failures()
        return records, {"server": peer.name, "peak_rss_mb": peak_rss_mb, "failed": failed}


def _measure(
    server: Server,
    door: Door,
    cell: Cell,
    *,
    model: Model,
    plan: Plan,
    capacity: dict[int, float],
) -> Record:
    setting = server.prepare(cell)
    answer_bytes = check(door, model, rows=cell.rows)
    request = door.encode(images(cell.rows))
    cpu_s = server.tree.cpu_s()
    window = _window(door, request, cell, plan=plan, capacity=capacity)
    cpu_s = server.tree.cpu_s() - cpu_s
    refuse_errors(window, door, answer_bytes=answer_bytes)
    p50_ms, p99_ms = np.percentile(window.latency_ms, [50, 99])
    return {
        "door": door.name,
        "setting": setting,
        **asdict(cell),
        "requests_per_s": window.requests_per_s,
        "rows_per_s": window.requests_per_s * cell.rows,
        "p50_ms": float(p50_ms),
        "p99_ms": float(p99_ms),
        "failed": window.failed,
        "cpu_s_per_1000_rows": cpu_s / (window.answered * cell.rows) * 1000,
        "late_p99_ms": window.late_p99_ms,
        "load_cpu_share": window.load_cpu_share,
    }


def _window(
    door: Door, request: Request, cell: Cell, *, plan: Plan, capacity: dict[int, float]
) -> Window:
    if cell.in_flight is not None:
        return closed_loop(
            door,
            request,
            in_flight=cell.in_flight,
            seconds=plan.seconds,
            warm_up_s=plan.warm_up_s,
        )
    assert cell.load is not None
    rate = cell.load * capacity[cell.rows]
    due_s = poisson(rate, seconds=plan.warm_up_s + plan.seconds, seed=SEED)
    return open_loop(door, request, due_s, warm_up_s=plan.warm_up_s)


def refuse_errors(window: Window, door: Door, *, answer_bytes: float) -> None:
    """Nothing, when answers are as long as a good one. Raises RuntimeError."""
    if abs(window.answer_bytes / answer_bytes - 1) > ANSWER_BYTES_OFF:
        raise RuntimeError(
            f"{door.url}: expected answers of {answer_bytes} bytes, got {window.answer_bytes:.0f} "
            f"on average; some are errors"
        )


def bare_session(onnx: Path, rows: int, *, seconds: float) -> dict[str, Any]:
    """The limit: session.run in a process that does nothing else; what bare_session.py prints."""
    command = [sys.executable, FILES / "bare_session.py", onnx, rows, seconds]
    done = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def _bare(model: Model, rows: int, *, seconds: float) -> Record:
    figures = bare_session(model.onnx, rows, seconds=seconds)
    p50_ms, p99_ms = np.percentile(figures["latency_ms"], [50, 99])
    requests = len(figures["latency_ms"])
    return {
        "server": "ONNX Runtime",
        "door": "in process",
        "setting": "bare session.run, 1 thread",
        **asdict(Cell(rows, in_flight=1)),
        "requests_per_s": figures["requests_per_s"],
        "rows_per_s": figures["requests_per_s"] * rows,
        "p50_ms": float(p50_ms),
        "p99_ms": float(p99_ms),
        "failed": 0,
        "cpu_s_per_1000_rows": figures["cpu_s"] / (requests * rows) * 1000,
        "late_p99_ms": 0.0,
        "load_cpu_share": 0.0,
    }


def _line(record: Record) -> str:
    load_words = (
        f"{record['in_flight']} in flight" if record["in_flight"] else f"{record['load']:.0%} load"
    )
    return (
        f"{record['server']:23} {record['door']:14} {record['rows']:3} rows {load_words:13} "
        f"{record['requests_per_s']:8.0f}/s  p50 {record['p50_ms']:7.2f}  p99 "
        f"{record['p99_ms']:7.2f} ms  {record['cpu_s_per_1000_rows']:.3f} CPU s/1000 rows"
    )


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr.strip()
