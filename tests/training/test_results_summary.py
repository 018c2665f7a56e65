"""What rows add up to: means, worst classes and paired differences, beside numpy and scipy."""

import numpy as np
import pytest
from scipy import stats

from amiss_training.results import Result
from amiss_training.results_summary import differences, standings, summary_lines
from result_rows import result

OURS = {
    ("0", 0): 0.95,
    ("0", 1): 0.97,
    ("1", 0): 0.80,
    ("1", 1): 0.84,
    ("10", 0): 0.9,
    ("10", 1): 1,
}
THEIRS = {
    ("0", 0): 0.9,
    ("0", 1): 0.9,
    ("1", 0): 0.85,
    ("1", 1): 0.85,
    ("10", 0): 0.9,
    ("10", 1): 0.9,
}


def rows(method: str, figures: dict[tuple[str, int], float], **changed: object) -> list[Result]:
    """A row for each class and seed."""
    return [
        result(method, auroc, **{"class_": c, "seed": s, "split_hash": f"{c}/{s}", **changed})
        for (c, s), auroc in figures.items()
    ]


def test_a_standing_is_the_mean_over_cells_and_names_the_worst_class() -> None:
    """Mean and sd go over classes and seeds, by_unit over seeds, worst is the lowest of those."""
    (found,) = standings(rows("vae", OURS))
    values = np.array(list(OURS.values()))
    assert found.mean == pytest.approx(values.mean())
    assert found.sd == pytest.approx(values.std(ddof=1))
    assert found.by_unit == pytest.approx({"0": 0.96, "1": 0.82, "10": 0.95})
    assert list(found.by_unit) == ["0", "1", "10"]
    assert found.worst == "1"
    assert found.cells == 6


def test_a_difference_is_paired_and_its_interval_rests_on_classes() -> None:
    """The interval is scipy's one-sample t interval of class means; wins and losses count cells."""
    (found,) = differences([*rows("vae", OURS), *rows("knn", THEIRS)])
    gaps = {cell: OURS[cell] - THEIRS[cell] for cell in OURS}
    means = [np.mean([gaps[c, s] for s in (0, 1)]) for c in ("0", "1", "10")]
    expected = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    assert (found.ours, found.theirs) == ("vae", "knn")
    assert found.mean == pytest.approx(np.mean(list(gaps.values())))
    assert found.interval == pytest.approx((expected.low, expected.high))
    assert (found.units, found.wins, found.losses, found.cells) == (3, 3, 2, 6)


def test_one_class_alone_is_judged_by_its_seeds() -> None:
    """With a single unit the interval is over seeds, with a single cell there is none."""
    gaps = [0.05, 0.07]
    found = differences(
        [*rows("vae", dict(list(OURS.items())[:2])), *rows("knn", dict(list(THEIRS.items())[:2]))]
    )[0]
    expected = stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
    assert found.interval == pytest.approx((expected.low, expected.high))
    assert differences([result("vae"), result("knn")])[0].interval is None


def test_only_equal_rows_are_compared() -> None:
    """Cells of another split, and cells only one of the two has, take no part in a difference."""
    other = rows("knn", THEIRS, split_hash="another")
    assert differences([*rows("vae", OURS), *other]) == []
    half = rows("knn", {("0", 0): 0.9})
    assert differences([*rows("vae", OURS), *half])[0].cells == 1


def test_settings_are_kept_apart() -> None:
    """One method under two settings stands there twice, each with its own figures."""
    both = [*rows("vae", OURS), *rows("vae", THEIRS, config_hash="fedcba987654")]
    found = {standing.name: standing.mean for standing in standings(both)}
    assert found == pytest.approx(
        {"vae#012345": np.mean(list(OURS.values())), "vae#fedcba": np.mean(list(THEIRS.values()))}
    )


def test_a_control_stands_beside_its_own_detector_only() -> None:
    """The untrained network of a VAE is compared with the VAE, not with the AAE."""
    control = result("vae/untrained", 0.7, kind="control")
    found = differences([result("vae"), result("aae"), control])
    assert [(d.ours, d.theirs) for d in found] == [("vae", "vae/untrained")]


def test_several_data_sets_are_units_of_their_own() -> None:
    """Without classes the worst unit is a data set; with both it is a class of a data set."""
    tables = [result(auroc=a, data=d, class_="") for d, a in (("cardio", 0.9), ("thyroid", 0.8))]
    assert standings(tables)[0].worst == "thyroid"
    both = [result(auroc=a, data=d) for d, a in (("mnist", 0.9), ("fashion", 0.8))]
    assert standings(both)[0].worst == "fashion/0"


def test_a_figure_of_nought_counts_and_an_undefined_one_does_not() -> None:
    """AUROC 0 lowers the mean; a peer that failed has no standing."""
    found = standings([result(auroc=0.0), result(seed=1, auroc=1.0), result("knn", None)])
    assert [(s.name, s.mean, s.cells) for s in found] == [("vae", 0.5, 2)]


def test_ours_come_first_and_the_best_first_among_equals() -> None:
    """The table's order is ours, read-outs, controls, peers, each by mean."""
    found = standings(
        [
            result("knn", 0.99),
            result("vae", 0.8),
            result("aae", 0.9),
            result("vae/elbo", 0.7, kind="readout"),
            result("vae/untrained", 0.95, kind="control"),
        ]
    )
    assert [s.name for s in found] == ["aae", "vae", "vae/elbo", "vae/untrained", "knn"]


def test_the_text_has_a_section_for_each_recipe() -> None:
    """Each recipe has its head, its methods and its differences, and none of the others'."""
    lines = summary_lines(
        [result(), result("knn", 0.8), result(recipe="table", over="none", data="cardio")]
    )
    heads = [lines.index("mnist-one-class, auroc, over normal_class"), lines.index("table, auroc")]
    assert heads[0] < heads[1]
    assert any(line.startswith("vae - knn") and "+0.1000" in line for line in lines[: heads[1]])
    assert not any("knn" in line for line in lines[heads[1] :])


def test_another_metric_is_summed_up_alone() -> None:
    """With metric f1 the peers, which have no threshold, leave the table."""
    lines = summary_lines([result(), result("knn", 0.8)], "f1")
    assert any(line.startswith("vae ") and "0.6500" in line for line in lines)
    assert not any("knn" in line for line in lines)


def test_nothing_to_sum_up_says_so() -> None:
    """Rows without the figure give one line that names it."""
    assert summary_lines([result(over="none")], "oracle_f1") == [
        "mnist-one-class, oracle_f1: no row has it"
    ]
