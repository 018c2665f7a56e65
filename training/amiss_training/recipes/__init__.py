"""One YAML file per protocol; a recipe is nothing but a first configuration file."""

from pathlib import Path

from amiss_export.errors import BadInput

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Names of the recipes, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def path_of(name: str) -> Path:
    """The recipe's file. Raises BadInput, listing the recipes, for a name there is none of."""
    if name not in names():
        raise BadInput(f"no recipe {name!r}; there are: {', '.join(names())}")
    return FOLDER / f"{name}.yaml"


def summary_of(name: str) -> str:
    """What the recipe is for: its first line."""
    return path_of(name).read_text().splitlines()[0].removeprefix("# ")
