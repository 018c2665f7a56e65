"""Rows as a sweep writes them, with figures of the test's choosing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from amiss_training.results import Result, append_results


def result(method: str = "vae", auroc: float | None = 0.9, **changed: Any) -> Result:
    """A row of our method, or of a peer's where the method is none of ours."""
    is_ours = method.split("/", maxsplit=1)[0] in ("vae", "aae", "alad", "ensemble")
    fields: dict[str, Any] = {
        "recipe": "mnist-one-class",
        "data": "mnist10k",
        "over": "normal_class",
        "class_": "0",
        "seed": 0,
        "method": method,
        "kind": "ours" if is_ours else "peer",
        "readout": "whitened_path" if is_ours else "",
        "auroc": auroc,
        "auprc": 0.8,
        "precision": 0.7 if is_ours else None,
        "recall": 0.6 if is_ours else None,
        "f1": 0.65 if is_ours else None,
        "flagged_share": 0.5 if is_ours else None,
        "false_alarm_share": 0.01 if is_ours else None,
        "fpr_at_95_tpr": 0.2,
        "oracle_f1": None,
        "n_train": 600,
        "n_seen": 850,
        "n_test": 9_150,
        "prevalence": 0.98,
        "split_hash": "split",
        "seconds": 12.5 if is_ours else None,
        "config_hash": "0123456789ab",
        "commit": "abc",
    }
    return Result(**(fields | changed))


def append_fifty(task: tuple[Path, int]) -> Iterator[None]:
    """Nothing; appends rows of classes 0 to 49, one at a time, to (path, seed)."""
    path, seed = task
    for i in range(50):
        append_results(path, [result(class_=str(i), seed=seed)])
    yield
