"""What the figures mean, in sentences a reader without statistics can use."""

from collections.abc import Mapping, Sequence
from typing import Any

from amiss_export.bundle import Decision

TITLES = {
    "isolation_forest": "Isolation forest",
    "pca_residual": "PCA residual (95 % of variance)",
    "pyod_pca": "PyOD PCA",
    "mahalanobis": "Mahalanobis",
    "knn": "5 nearest neighbours",
    "lof": "Local outlier factor",
    "ecod": "ECOD (tails of the normals)",
    "one_class_svm": "One-class SVM",
    "knn_complexity": "5 nearest neighbours with complexity correction",
    "untrained": "Our network without training",
}

_ADVICE = "Consider the simpler method, or train longer (trainer.max_epochs and trainer.max_steps)."
_SEPARATES = (
    (0.99, "almost perfectly"),
    (0.95, "very well"),
    (0.9, "well"),
    (0.8, "fairly well"),
    (0.65, "only moderately"),
    (0.5, "hardly at all"),
    (0.0, "the wrong way round"),
)


def readable(value: float) -> str:
    """The number as a person would write it: 0.1235, 12.35, 12,346, 1.235e+09."""
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e7 else f"{value:.4g}"


def chosen_by(decision: Decision, *, is_mixture: bool = False) -> str:
    """How the stored threshold was chosen; precision and F1 mean nothing without.

    is_mixture: anomalies are among the rows it was chosen by, as some papers have it.
    """
    d = decision
    rule = "conformal quantile" if d.confidence is None else "tolerance bound"
    return (
        f"{rule} of {d.n:,} {_held_out(is_mixture)} "
        f"at an alarm rate of {100 * d.alarm_rate:.3g} %; no test row had a say"
    )


def promise(decision: Decision, *, is_mixture: bool = False) -> str:
    """One sentence: where the threshold comes from and what it promises; see `chosen_by`."""
    d = decision
    source = f"The threshold {readable(d.threshold)} comes from {d.n} {_held_out(is_mixture)}"
    fresh = "fresh rows of such a mixture" if is_mixture else "fresh normals"
    rate = f"{100 * d.alarm_rate:.3g} % of {fresh}"
    if d.confidence is None:
        sentence = f"{source}: averaged over such draws, at most {rate} exceed it"
    else:
        sentence = f"{source}: with {100 * d.confidence:g} % confidence, at most {rate} exceed it"
    if d.alarm_rate_source == "default":
        sentence += " (no rate was asked for: the default that these rows support)"
    return sentence + "."


def verdict(metrics: Mapping[str, Any], *, noun: str) -> str:
    """One paragraph in plain words: how well it separates, what the threshold promises and holds.

    noun: what one test row is, 'row' or 'image'.
    """
    return " ".join(
        sentence
        for sentence in (
            _separation(metrics["auroc"], noun),
            metrics["threshold"]["promise"],
            _observed(metrics["band_99"], noun),
            _caught(metrics),
        )
        if sentence
    )


def peer_verdict(ours: float | None, peers: Mapping[str, Mapping[str, Any]]) -> tuple[bool, str]:
    """(True, who beats ours) when a simple peer has the higher AUROC, else (False, the best).

    Peers whose lead has a 95 % interval that leaves out 0 are told from those that may be lucky.
    """
    ranked = sorted(
        ((p["auroc"], name, p) for name, p in peers.items() if p["auroc"] is not None),
        key=lambda entry: -entry[0],
    )
    if ours is None or not ranked:
        return False, "No comparison with simple peers: it needs normals and anomalies."
    clear: list[str] = []
    unclear: list[str] = []
    for auroc, name, peer in ranked:
        if auroc > ours:
            leaves_out_0 = peer["difference"] and peer["difference"]["excludes_zero"]
            (clear if leaves_out_0 else unclear).append(_named(name, auroc))
    sentences = []
    if clear:
        sentences.append(
            f"{_listed(clear)} {'beats' if len(clear) == 1 else 'beat'} this detector's AUROC of "
            f"{ours:.4f} on the same test rows; the 95 % interval of the difference leaves out 0."
        )
    if unclear:
        sentences.append(
            f"{_listed(unclear)} {'is' if len(unclear) == 1 else 'are'} ahead of its {ours:.4f} by "
            "less than chance may explain: the 95 % interval of the difference holds 0."
        )
    if sentences:
        return True, " ".join([*sentences, _ADVICE])
    auroc, name, _ = ranked[0]
    return False, f"No simple peer does better; the best is {_named(name, auroc)}."


def _held_out(is_mixture: bool) -> str:
    return "held-out rows (anomalies among them)" if is_mixture else "held-out normals"


def _named(name: str, auroc: float) -> str:
    return f"{TITLES.get(name, name)} ({auroc:.4f})"


def _separation(auroc: float | None, noun: str) -> str:
    if auroc is None:
        return "The test rows are all of one kind, so how well it separates cannot be said."
    how = next(words for least, words in _SEPARATES if auroc >= least)
    return (
        f"It separates anomalies from normals {how}: an anomalous {noun} scores higher than a "
        f"normal one in {100 * auroc:.2f} % of pairs (AUROC {auroc:.4f})."
    )


def _observed(band: Mapping[str, Any] | None, noun: str) -> str:
    if band is None:
        return ""
    share = 100 * band["observed"] / band["n_normals"]
    where = "inside" if band["inside"] else "OUTSIDE"
    return (
        f"Of {band['n_normals']:,} normal test {noun}s it never saw, {band['observed']:,} were "
        f"flagged ({share:.2f} %), {where} the 99 % band of {band['low']:,} to {band['high']:,} "
        "for this threshold."
    )


def _caught(metrics: Mapping[str, Any]) -> str:
    if metrics["recall"] is None:
        return ""
    caught = round(metrics["recall"] * metrics["n_anomalies"])
    return (
        f"It caught {caught:,} of the {metrics['n_anomalies']:,} anomalies "
        f"({100 * metrics['recall']:.1f} %)."
    )


def _listed(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
