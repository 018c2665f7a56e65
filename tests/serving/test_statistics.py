"""Counts and times of one version."""

from prometheus_client import CollectorRegistry

from amiss_serving.metrics import Metrics
from amiss_serving.statistics import Duration, Statistics


def test_durations_add_up_in_whole_nanoseconds() -> None:
    """Two times make a count of two and their sum."""
    duration = Duration()
    duration.add(0.25)
    duration.add(1e-9)
    assert duration.read() == (2, 250_000_001)


def test_a_request_is_a_success_or_a_failure() -> None:
    """Each answer counts once, with its time, on the side where it belongs."""
    model = Metrics(CollectorRegistry()).model("a", 1)
    model.observe_answer(2.0, is_success=True)
    model.observe_answer(1.0, is_success=False)
    statistics = model.statistics
    assert (statistics.success, statistics.fail) == (Duration(1, 2 * 10**9), Duration(1, 10**9))


def test_rows_leave_the_moment_they_were_scored() -> None:
    """Rows add up, and the last moment is in milliseconds since 1970."""
    statistics = Statistics(wall_clock=lambda: 1_700_000_000.5)
    statistics.add_rows(3)
    statistics.add_rows(4)
    assert statistics.inference_count == 7
    assert statistics.last_inference_ms == 1_700_000_000_500


def test_each_phase_adds_to_the_statistic_of_the_protocol() -> None:
    """Queue, decode, compute and encode are queue, compute_input, compute_infer, compute_output."""
    model = Metrics(CollectorRegistry()).model("a", 1)
    for seconds, phase in enumerate(("queue", "decode", "compute", "encode"), start=1):
        model.phases[phase].observe(seconds)
    s = model.statistics
    found = [
        d.read()[1] // 10**9 for d in (s.queue, s.compute_input, s.compute_infer, s.compute_output)
    ]
    assert found == [1, 2, 3, 4]


def test_a_run_counts_once_in_metrics_and_statistics() -> None:
    """Its rows reach the histogram, its time the phase and the batches of that size."""
    registry = CollectorRegistry()
    model = Metrics(registry).model("a", 1)
    for rows, seconds in ((4, 1.0), (4, 2.0), (8, 1.0)):
        model.observe_run(rows, seconds)
    labels = {"model": "a", "version": "1"}
    assert registry.get_sample_value("amiss_batch_rows_sum", labels) == 16
    phase = {**labels, "phase": "compute"}
    assert registry.get_sample_value("amiss_phase_duration_seconds_sum", phase) == 4
    assert model.statistics.compute_infer == Duration(3, 4 * 10**9)
    assert model.statistics.batches == {4: Duration(2, 3 * 10**9), 8: Duration(1, 10**9)}
