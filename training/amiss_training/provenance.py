"""Where a bundle comes from: settings, rows, code and libraries, for its manifest."""

import logging
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from amiss_export.bundle import Provenance
from amiss_training.config import TrainConfig
from amiss_training.data import Prepared
from amiss_training.learn import settings

LIBRARIES = ("amiss", "torch", "lightning", "numpy", "onnx", "onnxruntime-gpu", "onnxruntime")


def provenance(config: TrainConfig, prepared: Prepared) -> Provenance:
    """What made a bundle, as its manifest keeps it."""
    return Provenance(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        recipe=config.recipe,
        seed=config.seed,
        config=settings(config),
        data_hash=prepared.data_hash,
        split_hash=prepared.split_hash,
        split_rows=prepared.split_rows,
        duplicate_rows_removed=prepared.duplicate_rows_removed,
        git_commit=git_commit(),
        libraries={name: found for name in LIBRARIES if (found := _version(name))},
        notes=tuple(prepared.notes),
    )


def _version(library: str) -> str | None:
    try:
        return version(library)
    except ModuleNotFoundError:
        return None


def git_commit() -> str | None:
    """Commit of the source tree this code runs from; None when it runs from an installed wheel."""
    git = shutil.which("git")
    if git is None or "site-packages" in __file__:
        return None
    found = subprocess.run(  # noqa: S603  fixed arguments, no shell
        [git, "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    logging.getLogger(__name__).debug("git says %s", found)
    return found.stdout.strip() or None
