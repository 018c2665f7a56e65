"""Images and their trees, built once a session; bundles that a container serves."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

from bundle_factory import write_image_bundle, write_table_bundle

from .building import Image, build, missing_programs
from .container import tree_of
from .contents import size_table

LABELS = {
    "VERSION": version("amiss"),
    "REVISION": "0123456789abcdef",
    "SOURCE": "https://example.org/amiss",
}

TABLES = pytest.StashKey[list[str]]()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what each image built by this run weighs."""
    for table in config.stash.get(TABLES, []):
        terminalreporter.write_line(table)


@dataclass(frozen=True)
class Built:
    """An image, and its files as one folder."""

    image: Image
    tree: Path


@pytest.fixture(scope="session")
def built(request: pytest.FixtureRequest) -> Iterator[Callable[..., Built]]:
    """built(target, device='cpu'): the image of a target, made when first asked for."""
    _require_a_builder()
    known: dict[tuple[str, str], Built] = {}
    tables = request.config.stash.setdefault(TABLES, [])
    with ExitStack() as stack:

        def get(target: str, device: str = "cpu") -> Built:
            if (target, device) not in known:
                image = build(target, device=device, arguments=LABELS)
                tree = stack.enter_context(tree_of(image))
                known[target, device] = Built(image, tree)
                tables.append(size_table(tree, f"{target}, DEVICE={device}"))
            return known[target, device]

        yield get


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder that any user may read: table@1 and image@1."""
    folder = tmp_path_factory.mktemp("models")
    write_table_bundle(folder)
    write_image_bundle(folder)
    return readable(folder)


def readable(folder: Path) -> Path:
    """The folder, which users other than its owner may read; pytest's are closed to them."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def _require_a_builder() -> None:
    missing = missing_programs()
    if not missing and os.geteuid() == 0:
        return
    reason = f"needs root and the Debian packages {missing}" if missing else "needs root"
    if os.environ.get("CI"):
        pytest.fail(f"CI must be able to build images: {reason}")
    pytest.skip(f"building images {reason}")
