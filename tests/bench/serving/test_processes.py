"""A tree of processes is seen, measured and ended as a whole."""

import sys
import time
from pathlib import Path

import psutil

from bench.serving.processes import Tree, running, wait_until

ORPHANING = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "print('up', flush=True)\\nwhile True: pass"])
"""
WITH_CHILD = ORPHANING + "import time; time.sleep(60)"


def _said(tree: Tree) -> bool:
    return "up" in tree.log.read_text()


def test_children_end_with_their_parent(tmp_path: Path) -> None:
    """A child that spins is killed, though only the parent was asked to end."""
    with running([sys.executable, "-c", WITH_CHILD], log=tmp_path / "log", cwd=tmp_path) as tree:
        wait_until(lambda: _said(tree), tree)
        members = tree.members()
        assert len(members) == 2
    assert not any(psutil.pid_exists(each.pid) and _spins(each) for each in members)


def test_orphans_end_too(tmp_path: Path) -> None:
    """A child whose parent is long gone is still found by its session."""
    with running([sys.executable, "-c", ORPHANING], log=tmp_path / "log", cwd=tmp_path) as tree:
        tree.root.wait()
        while not _said(tree):
            time.sleep(0.02)
        (orphan,) = tree.members()
    assert not _spins(orphan)


def test_the_whole_tree_is_measured(tmp_path: Path) -> None:
    """CPU seconds and memory are the parent's and the child's together."""
    with running([sys.executable, "-c", WITH_CHILD], log=tmp_path / "log", cwd=tmp_path) as tree:
        wait_until(lambda: _said(tree), tree)
        before = tree.cpu_s()
        root = psutil.Process(tree.root.pid)
        while tree.cpu_s() - before < 0.1:  # only the child works
            time.sleep(0.02)
        assert sum(root.cpu_times()[:2]) < tree.cpu_s()
        assert tree.peak_rss_mb() > 1.5 * root.memory_info().rss / 2**20


def _spins(process: psutil.Process) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        time.sleep(0.02)
    return True
