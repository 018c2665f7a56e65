"""The machine of `make gpu-check`: its devices, the versions installed, and what its tests say."""

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from xml.etree import ElementTree

from .device_memory import cuda_of_driver
from .gpu_checks import Line

PACKAGES = ("amiss", "onnxruntime-gpu", "onnxruntime", "torch", "numpy")
MARK = "pytest.mark.gpu"
ALL_PASSED = "all passed"
FIELDS = "index,name,memory.total,driver_version"
QUERY = ("nvidia-smi", f"--query-gpu={FIELDS}", "--format=csv,noheader")


def device_lines() -> Iterator[Line]:
    """Each device as nvidia-smi names it, and the newest CUDA that the driver runs."""
    try:
        said = subprocess.run(QUERY, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        said = f"?, nvidia-smi does not say: {error}"
    for line in said.strip().splitlines():
        index, _, words = line.partition(", ")
        yield Line(f"device {index}", words)
    yield Line("CUDA of the driver", cuda_of_driver())


def version_lines() -> Iterator[Line]:
    """Python's version, and that of each package that is installed."""
    yield Line("Python", sys.version.partition(" ")[0])
    for name in PACKAGES:
        try:
            yield Line(name, version(name))
        except PackageNotFoundError:
            continue
    yield Line("CUDA of torch", _cuda_of_torch())


def gpu_test_lines(tests: Path) -> list[Line]:
    """How the tests below a folder that are marked gpu went; skipped ones count as not held."""
    marked = sorted(path for path in tests.rglob("test_*.py") if MARK in path.read_text())
    with tempfile.TemporaryDirectory(prefix="amiss-gpu-") as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, f"--junitxml={report}", *map(str, marked)],
            cwd=tests.parent,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if not report.exists():
            said = f"{done.stdout[-4000:]}{done.stderr[-2000:]}"
            return [Line("tests", f"none ran:\n{said}", ALL_PASSED, held=False)]
        root = ElementTree.parse(report).getroot()  # noqa: S314  our own file
        return outcome_lines(root.iter("testcase"))


def outcome_lines(cases: Iterable[ElementTree.Element]) -> list[Line]:
    """The counts of a JUnit report, and for each test that did not pass its first words."""
    counts, others = Counter[str](), []
    for case in cases:
        outcome = next((e for e in case if e.tag in {"failure", "error", "skipped"}), None)
        counts["passed" if outcome is None else outcome.tag] += 1
        if outcome is not None:
            words = outcome.get("message", "").partition("\n")[0]
            others.append(Line(outcome.tag, f"{case.get('name')}: {words}"))
    figure = ", ".join(f"{n} {name}" for name, n in counts.items()) or "none"
    return [Line("tests", figure, ALL_PASSED, set(counts) == {"passed"}), *others]


def _cuda_of_torch() -> str:
    try:
        import torch
    except ModuleNotFoundError:
        return "no torch"
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]  # it has no annotations
    return f"{torch.version.cuda or 'none'}, cuDNN {cudnn or 'none'}"
