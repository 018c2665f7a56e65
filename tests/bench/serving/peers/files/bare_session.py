"""Bare ONNX Runtime, one caller in process: bare_session.py MODEL.onnx ROWS SECONDS -> JSON."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime


def main(path: str, rows: int, seconds: float) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    (asked,) = session.get_inputs()
    random, shape = np.random.default_rng(0), (rows, *asked.shape[1:])
    if asked.type == "tensor(uint8)":
        x = random.integers(0, 256, shape).astype(np.uint8)
    else:
        x = random.normal(size=shape).astype(np.float32)
    for _ in range(20):
        session.run(["score"], {"x": x})
    cpu_s, started, latency_ms = time.process_time(), time.perf_counter(), []
    while time.perf_counter() - started < seconds:
        before = time.perf_counter()
        session.run(["score"], {"x": x})
        latency_ms.append((time.perf_counter() - before) * 1000)
    spent, cpu_s = time.perf_counter() - started, time.process_time() - cpu_s
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    figures = {"requests_per_s": len(latency_ms) / spent, "latency_ms": latency_ms, "cpu_s": cpu_s}
    print(json.dumps({**figures, "peak_rss_mb": int(peak.split()[1]) / 1024}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
