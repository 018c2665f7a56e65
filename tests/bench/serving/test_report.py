"""The page says what the records say: medians over rounds, ratios inside each."""

from pathlib import Path
from typing import Any

import pytest

from bench.serving.report import draw, median_of, ratio, render, replace_part, write_report


def record(server: str, door: str, number: int, rate: float, **changes: Any) -> dict[str, Any]:
    figures = {"requests_per_s": rate, "rows_per_s": rate, "p50_ms": 1000 / rate, "p99_ms": 2.0}
    kind = {"rows": 1, "in_flight": 64, "load": None, "setting": "as it comes"}
    costs = {"cpu_s_per_1000_rows": 0.1, "late_p99_ms": 0.0, "load_cpu_share": 0.1, "failed": 0}
    return {"server": server, "door": door, "round": number, **figures, **kind, **costs, **changes}


RECORDS = [
    record("Amiss", "gRPC", 0, 300),
    record("Amiss", "gRPC", 1, 100),
    record("Amiss", "gRPC", 2, 900),
    record("TorchServe", "HTTP", 0, 100),
    record("TorchServe", "gRPC", 0, 150),
    record("TorchServe", "HTTP", 1, 100),
    record("TorchServe", "gRPC", 1, 50),
    record("TorchServe", "HTTP", 2, 100),
    record("TorchServe", "gRPC", 2, 150),
]
RESULTS = {
    "machine": {"date": "2026-01-02", "commit": "abc1234", "cpu": "a CPU", "cores": 2,
                "memory_gb": 8, "onnxruntime": "1.2.3", "h2load": "h2load nghttp2/1.52.0"},
    "plan": {"rounds": 3, "seconds": 3.0, "warm_up_s": 1.0, "tune_s": 0.7},
    "versions": {"Amiss": "0.1.0", "TorchServe": "0.12.0"},
    "records": [*RECORDS, record("Amiss", "gRPC", 0, 50, in_flight=1)],
    "servers": [{"round": 0, "server": "Amiss", "peak_rss_mb": 210.0, "failed": ["x 1.0"]}],
}  # fmt: skip


def test_a_ratio_is_taken_inside_its_round_and_against_the_best_door() -> None:
    """Rounds of 300/150, 100/100 and 900/150 make 2, not the ratio of the medians."""
    assert ratio(RECORDS, "requests_per_s", to="TorchServe") == 2
    assert ratio(RECORDS, "requests_per_s", to="Triton") is None


def test_of_latencies_the_least_is_best() -> None:
    """The other server's best door is the one with the lowest latency."""
    assert ratio(RECORDS, "p50_ms", to="TorchServe") == pytest.approx(0.5)


def test_the_page_has_a_table_for_each_kind_of_request() -> None:
    """Titles, medians, what servers counted as failed, and the commit that was measured."""
    page = render(RESULTS, "performance.png")
    assert "### 1 row a request, 1 caller\n" in page
    assert "### 1 row a request, 64 callers\n" in page
    assert "| Amiss, gRPC | 300 | 300 | 3.33 | 2.00 | 0.100 | as it comes |" in page
    assert "| 1 row a request, 64 callers: answers/s | 2.00 |" in page
    assert "`x 1.0`" in page
    assert "commit abc1234" in page
    assert median_of(RECORDS[:3], "requests_per_s") == 300


def test_each_kind_of_torchserve_has_a_column() -> None:
    """ONNX Runtime and TorchScript in its handler make two peers, not two doors of one."""
    second = record("TorchServe, TorchScript", "HTTP", 0, 50)
    page = render({**RESULTS, "records": [*RECORDS, second]}, "performance.png")
    head = (
        "| Amiss over gRPC, relative to the best door of | TorchServe | TorchServe, TorchScript |"
    )
    assert head in page
    assert "| 1 row a request, 64 callers: answers/s | 2.00 | 6.00 |" in page


def test_a_page_without_the_grid_says_so() -> None:
    """A quick look leaves TorchServe at one setting, which must not pass for its best."""
    assert "best of its grid" in render(RESULTS, "performance.png")
    quick = {**RESULTS, "plan": {**RESULTS["plan"], "tune_s": 0}}  # type: ignore[dict-item]
    assert "best of its grid" not in render(quick, "performance.png")


def test_what_people_wrote_around_the_tables_stays(tmp_path: Path) -> None:
    """Only the part between the two marks is replaced, as often as it is made."""
    page = tmp_path / "performance.md"
    begin, end = "<!-- bench_serving.py: begin -->", "<!-- bench_serving.py: end -->"
    page.write_text(f"# Ours\n\nbefore\n{begin}\nold\n{end}\nafter\n")
    for _ in range(2):
        write_report(RESULTS, page)
    text = page.read_text()
    assert text.startswith(f"# Ours\n\nbefore\n{begin}\n## Serving")
    assert text.endswith(f"{end}\nafter\n")
    assert "old" not in text


def test_a_new_part_comes_last_and_half_a_frame_is_refused(tmp_path: Path) -> None:
    """Each script has its part of the page; one that lost a mark is left for a person."""
    page = tmp_path / "performance.md"
    replace_part(page, "a.py", "first")
    replace_part(page, "b.py", "second")
    assert page.read_text().index("first") < page.read_text().index("second")
    page.write_text("<!-- a.py: begin -->\nmine")
    with pytest.raises(SystemExit, match=r"a\.py: end"):
        replace_part(page, "a.py", "new")
    assert page.read_text().endswith("mine")


def test_the_plot_is_small(tmp_path: Path) -> None:
    """A page in the repository carries less than 200 kB of picture."""
    draw(RESULTS["records"], tmp_path / "plot.png")  # type: ignore[arg-type]
    assert 5_000 < (tmp_path / "plot.png").stat().st_size < 200_000
