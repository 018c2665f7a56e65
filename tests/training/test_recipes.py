"""Recipes are options that the command line accepts."""

from functools import cache
from pathlib import Path

import pytest

from amiss_cli.train import parse
from amiss_export.errors import BadInput
from amiss_training import recipes
from amiss_training.config import TrainConfig


@cache
def config_of(name: str) -> TrainConfig:
    """The recipe as the command line reads it."""
    return parse(["--recipe", name, "--data", "somewhere"])


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_is_accepted(name: str) -> None:
    """Each file holds known options only, names its purpose and takes the recipe's name."""
    config = config_of(name)
    assert config.name == config.recipe == name
    assert len(recipes.summary_of(name)) > 20


def test_the_recipes_are_those_of_the_design() -> None:
    """There is one recipe for each protocol, and none beside them; directions have their own."""
    found = {name for name in recipes.names() if not name.startswith("directions-")}
    assert found == {
        *("digits", "breast-cancer"),
        *("mnist-one-class", "mnist-held-out", "mnist-alad", "fashion-one-class"),
        *("in-vs-out", "cifar10-one-class", "svhn-one-class", "mvtec", "image-folder"),
        *("kdd99-natural", "kdd99-family", "kdd99-dagmm"),
        *("arrhythmia", "arrhythmia-paper", "table", "tabular-peers"),
    }


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_stops_on_held_out_rows_within_bounds(name: str) -> None:
    """Each keeps rows for early stopping and for the threshold (defect D14), and bounds steps."""
    config = config_of(name)
    assert min(config.options.early_stop_share, config.options.calibration_share) > 0
    assert config.trainer["max_steps"] > 0
    assert config.trainer["max_epochs"] > 0


@pytest.mark.parametrize("name", recipes.names())
def test_only_paper_protocols_leak_or_look_at_the_test(name: str) -> None:
    """Whatever mixes roles, or takes a percentile of test scores (defect D6), is called a paper's.

    A percentile needs the share of anomalies in the test, which nobody knows in use.
    """
    options = config_of(name).options
    departs = (
        not options.keep_anomalies_out
        or not options.keep_repeats_together
        or options.oracle_flag_share is not None
    )
    assert departs == (name in ("kdd99-dagmm", "arrhythmia-paper"))
    assert departs == recipes.summary_of(name).startswith("Paper protocol")


def test_an_unknown_recipe_lists_those_there_are() -> None:
    """A misspelt recipe is answered with the list."""
    with pytest.raises(BadInput, match=r"no recipe 'digit'; there are: .*digits"):
        recipes.path_of("digit")


def test_flags_win_over_a_file_and_a_file_over_the_recipe(tmp_path: Path) -> None:
    """Each option comes from the last place that names it: flag, file, recipe, default."""
    mine = tmp_path / "mine.yaml"
    mine.write_text("alarm_rate: 0.2\nseed: 5\nfit: {patience: 3}\n")
    config = parse(["--recipe", "digits", "--config", str(mine), "--seed", "7"])
    assert (config.seed, config.alarm_rate, config.fit.patience) == (7, 0.2, 3)
    assert config.fit.batch_size == 64, "the recipe's, untouched by the file"
    assert config.vae.kl_weight == 1.0, "the default"


def test_a_file_may_name_the_recipe(tmp_path: Path) -> None:
    """A recipe named in YAML is where the options start from, and the file wins over it."""
    mine = tmp_path / "mine.yaml"
    mine.write_text("recipe: digits\nfit: {patience: 3}\n")
    config = parse(["--config", str(mine)])
    assert (config.name, config.recipe, config.options.loader) == ("digits", "digits", "digits")
    assert (config.fit.batch_size, config.fit.patience) == (64, 3)


@pytest.mark.parametrize(
    ("recipe", "flag", "classes"),
    [
        ("mnist-one-class", "--anomaly-class", (None, "3")),
        ("mnist-held-out", "--normal-class", ("3", None)),
        ("mnist-one-class", "--normal-class", ("3", None)),
    ],
)
def test_a_class_by_flag_replaces_the_recipes(
    recipe: str, flag: str, classes: tuple[str | None, str | None]
) -> None:
    """The recipe's normal class does not stay beside an anomaly class, nor the other way round."""
    for argv in ([flag, "3"], [f"{flag}=3"]):
        options = parse(["--recipe", recipe, "--data", "x", *argv]).options
        assert (options.normal_class, options.anomaly_class) == classes


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--recipe", "digits", "--fit.batch-sise", "3"], "batch_sise"),
        (["--recipe", "digits", "--seed", "many"], "seed"),
        (["--recipe", "table"], "expected --data PATH"),
        (["--recipe"], "--recipe: expected one argument"),
        (["--data", "x.csv"], "expected --name NAME"),
    ],
)
def test_a_wrong_option_is_one_clear_line(argv: list[str], message: str) -> None:
    """An unknown option, a wrong value or a missing one names itself on one line."""
    with pytest.raises(BadInput, match=message) as raised:
        parse(argv)
    assert "\n" not in str(raised.value)


def test_an_unknown_key_in_a_file_is_refused(tmp_path: Path) -> None:
    """A misspelt key in YAML is an error, not silence."""
    mine = tmp_path / "mine.yaml"
    mine.write_text("alarm_rat: 0.2\n")
    with pytest.raises(BadInput, match="alarm_rat"):
        parse(["--recipe", "digits", "--config", str(mine)])
