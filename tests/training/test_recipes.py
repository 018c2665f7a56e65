"""Recipes are options that the command line accepts."""

from pathlib import Path

import pytest

from amiss_cli.train import parse
from amiss_export.errors import BadInput
from amiss_training import recipes


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_is_accepted(name: str) -> None:
    """Each file holds known options only, names its purpose and takes the recipe's name."""
    config = parse(["--recipe", name, "--data", "somewhere"])
    assert config.name == config.recipe == name
    assert len(recipes.summary_of(name)) > 20


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


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--recipe", "digits", "--fit.batch-sise", "3"], "batch_sise"),
        (["--recipe", "digits", "--seed", "many"], "seed"),
        (["--recipe", "table"], "expected --data PATH"),
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
