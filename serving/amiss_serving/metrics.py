"""Every metric of the service, in base units.

Labels only from {model, version, protocol, method, code, phase}: their number stays bounded,
whatever callers send.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
)

from amiss_export.decision import Verdicts
from amiss_serving.histograms import ArrayHistogram, ArraySeries
from amiss_serving.statistics import Duration, Statistics

MODEL = ("model", "version")
# Each phase, and the statistic of the Open Inference Protocol that it is.
PHASES = {
    "queue": "queue",
    "decode": "compute_input",
    "compute": "compute_infer",
    "encode": "compute_output",
}
REQUEST_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
PHASE_S = (0.00005, 0.0001, 0.00025, *REQUEST_S)
BATCH_ROWS = tuple(2**i for i in range(13))
NORMALIZED = tuple(round(0.05 * i, 2) for i in range(21))
DIFFERENCES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
P_VALUES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)


class Metrics:
    """All families, in a registry of their own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        # Process-wide, and untyped upstream: a gauge beside every counter, which nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "amiss_requests_total",
            "Requests answered, by their status code.",
            (*MODEL, "protocol", "method", "code"),
            registry=registry,
        )
        self.request_duration = ArrayHistogram(
            "amiss_request_duration_seconds",
            "Seconds from a request's arrival to its answer.",
            (*MODEL, "protocol", "method"),
            bounds=REQUEST_S,
            registry=registry,
        )
        self.phase_duration = ArrayHistogram(
            "amiss_phase_duration_seconds",
            "Seconds in each phase of scoring: queue, decode, compute, encode.",
            (*MODEL, "phase"),
            bounds=PHASE_S,
            registry=registry,
        )
        self.batch_rows = ArrayHistogram(
            "amiss_batch_rows",
            "Rows that went into one run of the model.",
            MODEL,
            bounds=BATCH_ROWS,
            registry=registry,
        )
        self.queue_rows = Gauge(
            "amiss_queue_rows", "Rows waiting for a batch.", MODEL, registry=registry
        )
        self.rows = Counter("amiss_rows_total", "Rows scored.", MODEL, registry=registry)
        self.anomalies = Counter(
            "amiss_anomalies_total", "Rows that were anomalies.", MODEL, registry=registry
        )
        self.scores = ArrayHistogram(
            "amiss_score_normalized",
            "Normalized scores: 0 the median normal, 0.5 the threshold.",
            MODEL,
            bounds=NORMALIZED,
            registry=registry,
        )
        self.p_values = ArrayHistogram(
            "amiss_p_value",
            "Share of calibration normals at least as anomalous as the row; uniform on normals.",
            MODEL,
            bounds=P_VALUES,
            registry=registry,
        )
        self.alarm_rate = Gauge(
            "amiss_alarm_rate_expected",
            "Share of normal rows that the threshold lets alarm, as calibrated.",
            MODEL,
            registry=registry,
        )
        self.worker_restarts = Counter(
            "amiss_worker_restarts_total",
            "Times what runs the model (a thread, a TorchServe worker) died and was replaced.",
            MODEL,
            registry=registry,
        )
        self.ready = Gauge(
            "amiss_ready", "1 when it is right to send rows here, as /readyz.", registry=registry
        )
        self.refused_bundles = Gauge(
            "amiss_refused_bundles", "Bundles on disk that are not served.", registry=registry
        )
        self.info = Gauge(
            "amiss_model_info", "1 for every detector being served.", MODEL, registry=registry
        )
        self.load_duration = Gauge(
            "amiss_model_load_duration_seconds",
            "Seconds it took to check and load the bundle.",
            MODEL,
            registry=registry,
        )
        self.shadow_rows = Counter(
            "amiss_shadow_rows_total", "Copied rows that a canary scored.", MODEL, registry=registry
        )
        self.shadow_disagreements = Counter(
            "amiss_shadow_disagreements_total",
            "Copied rows on which a canary's verdict differs from that of the default version.",
            MODEL,
            registry=registry,
        )
        self.shadow_errors = Counter(
            "amiss_shadow_errors_total",
            "Copied requests that could not be compared.",
            MODEL,
            registry=registry,
        )
        self.shadow_differences = ArrayHistogram(
            "amiss_shadow_score_difference",
            "Difference of the normalized scores of a canary and the default version, unsigned.",
            MODEL,
            bounds=DIFFERENCES,
            registry=registry,
        )
        self.shadow_duration = ArrayHistogram(
            "amiss_shadow_duration_seconds",
            "Seconds each of the two versions took for the copied rows.",
            MODEL,
            bounds=PHASE_S,
            registry=registry,
        )
        self._models: dict[tuple[str, int], ModelMetrics] = {}
        self._calls: dict[tuple[str, ...], _Calls] = {}

    def model(self, name: str, version: int) -> "ModelMetrics":
        """What scoring with one detector touches, resolved once."""
        model = self._models.get((name, version))
        if model is None:
            model = self._models.setdefault((name, version), ModelMetrics(self, name, str(version)))
        return model

    def announce(self, name: str, version: int, *, alarm_rate: float, load_s: float) -> None:
        """Publish what is known about a detector before its first request."""
        key = (name, str(version))
        self.info.labels(*key).set(1)
        self.alarm_rate.labels(*key).set(alarm_rate)
        self.load_duration.labels(*key).set(load_s)
        self.model(name, version)

    def withdraw(self, name: str, version: int) -> None:
        """Take back what `announce` published: the detector is no longer served. Counters stay."""
        for gauge in (self.info, self.alarm_rate, self.load_duration):
            gauge.remove(name, str(version))

    def observe_shadow(
        self,
        name: str,
        version: int,
        *,
        differences: NDArray[np.float32],
        disagreements: int,
        runs_s: Mapping[int, float],
    ) -> None:
        """Count one copied request. version: the canary's; runs_s: seconds by version."""
        key = (name, str(version))
        self.shadow_rows.labels(*key).inc(len(differences))
        self.shadow_disagreements.labels(*key).inc(disagreements)
        self.shadow_differences.labels(*key).observe(differences)
        for ran, run_s in runs_s.items():
            self.shadow_duration.labels(name, str(ran)).add(run_s)

    def observe_request(
        self, model: str, version: str, *, protocol: str, method: str, code: str, duration_s: float
    ) -> None:
        """Count one answered request; model and version are empty when no detector was found."""
        key = (model, version, protocol, method, code)
        calls = self._calls.get(key)
        if calls is None:
            calls = self._calls[key] = _Calls(
                self.requests.labels(*key),
                self.request_duration.labels(model, version, protocol, method),
            )
        calls.count.inc()
        calls.duration.add(duration_s)


@dataclass(frozen=True)
class _Calls:
    """The two children that a finished request touches."""

    count: Counter
    duration: ArraySeries


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase of one detector's requests: what Prometheus is told and what statistics add up."""

    series: ArraySeries
    duration: Duration

    def observe(self, seconds: float) -> None:
        """Count what took so long."""
        self.series.add(seconds)
        self.duration.add(seconds)


class ModelMetrics:
    """One detector's metrics. Every series exists from the start, at zero."""

    def __init__(self, metrics: Metrics, name: str, version: str) -> None:
        key = self.key = (name, version)
        self.statistics = Statistics()
        self.phases = {
            phase: Phase(
                metrics.phase_duration.labels(*key, phase), getattr(self.statistics, statistic)
            )
            for phase, statistic in PHASES.items()
        }
        self.batch_rows = metrics.batch_rows.labels(*key)
        self.queue_rows = metrics.queue_rows.labels(*key)
        self.worker_restarts = metrics.worker_restarts.labels(*key)
        self._rows = metrics.rows.labels(*key)
        self._anomalies = metrics.anomalies.labels(*key)
        self._scores = metrics.scores.labels(*key)
        self._p_values = metrics.p_values.labels(*key)

    def observe_run(self, rows: int, seconds: float) -> None:
        """Count one run of the model that came back."""
        self.batch_rows.add(rows)
        self.phases["compute"].observe(seconds)
        self.statistics.add_batch(rows, seconds)

    def observe_answer(self, seconds: float, *, is_success: bool) -> None:
        """Count one request that was answered, or not, from its arrival."""
        statistics = self.statistics
        (statistics.success if is_success else statistics.fail).add(seconds)

    def observe_verdicts(self, verdicts: Verdicts) -> None:
        """Count n rows at once."""
        self.statistics.add_rows(len(verdicts.score))
        self._rows.inc(len(verdicts.score))
        self._anomalies.inc(int(np.count_nonzero(verdicts.is_anomaly)))
        self._scores.observe(verdicts.normalized_score)
        self._p_values.observe(verdicts.p_value)
