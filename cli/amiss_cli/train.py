"""`amiss train`: from data to a bundle."""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from amiss_cli.options import OptionParser
from amiss_cli.summary import summary
from amiss_cli.usage import UsageParser
from amiss_export.errors import BadInput
from amiss_training import recipes
from amiss_training.config import TrainConfig
from amiss_training.data import DataOptions
from amiss_training.data.augment import AugmentConfig
from amiss_training.detectors import CONFIGS, DETECTORS
from amiss_training.fit import FitConfig
from amiss_training.train import Trained, train

STARTERS = ("digits", "breast-cancer")
CLASSES = {"normal_class": "anomaly_class", "anomaly_class": "normal_class"}
OURS = ("callbacks", "logger", "default_root_dir", "enable_checkpointing", "plugins", "strategy")


def main(argv: list[str]) -> int:
    """Trains one detector and prints where its bundle is and how good it is."""
    trained = train(parse(argv), say=_say)
    if trained is not None:
        _report(trained)
    return 0


def parse(argv: list[str]) -> TrainConfig:
    """The run that the options describe: the recipe first, then --config files, then flags."""
    chosen, _ = _recipe_parser().parse_known_args(argv)
    values = training_parser().parse([*_recipe(chosen), *argv])
    if values["recipe"] != chosen.recipe:  # a --config file names it
        chosen.recipe = values["recipe"]
        values = training_parser().parse([*_recipe(chosen), *argv])
    return to_config(values)


def _recipe(chosen: argparse.Namespace) -> list[str]:
    """The recipe's options, less the class that a flag for the other class replaces."""
    if chosen.recipe is None:
        return []
    flags = vars(chosen)
    replaced = [other for named, other in CLASSES.items() if flags[named] and not flags[other]]
    path = recipes.path_of(chosen.recipe)
    return ["--config", str(path), *(f"--{name}=null" for name in replaced)]


def to_config(values: dict[str, Any]) -> TrainConfig:
    """The run that parsed options describe. Raises BadInput without a name or data."""
    flat = {f.name: values[f.name] for f in dataclasses.fields(DataOptions)}
    name = values["name"] or values["recipe"]
    if not name:
        raise BadInput("expected --name NAME (a recipe's name is the default), got neither")
    if values["data"] is None and flat["data_set"] is None and flat["loader"] not in STARTERS:
        raise BadInput(
            "expected --data PATH or --data-set NAME, got neither; only the starter recipes bring "
            "their data"
        )
    return TrainConfig(
        name=name,
        data=values["data"],
        models=values["models"],
        runs=values["runs"],
        detector=values["detector"],
        recipe=values["recipe"],
        seed=values["seed"],
        alarm_rate=values["alarm_rate"],
        confidence=values["confidence"],
        resume=values["resume"],
        options=DataOptions(**_tuples(flat)),
        **{name: kind(**_tuples(values[name])) for name, kind in CONFIGS.items()},
        augment=AugmentConfig(**values["augment"]),
        fit=FitConfig(**values["fit"]),
        trainer={k: v for k, v in values["trainer"].items() if v is not None},
    )


def _recipe_parser() -> argparse.ArgumentParser:
    parser = UsageParser(prog="amiss train", add_help=False)
    parser.add_argument("--recipe")
    for name in CLASSES:
        parser.add_argument(f"--{name}", f"--{name.replace('_', '-')}")
    return parser


def training_parser(*, prog: str = "amiss train") -> OptionParser:
    """Every option of a training run; sub-commands that train many times add their own."""
    lines = [f"  {name:<18} {recipes.summary_of(name)}" for name in recipes.names()]
    parser = OptionParser(
        prog=prog,
        description="Learn what normal looks like and write a bundle.\n\nrecipes:\n"
        + "\n".join(lines),
        formatter_class=_HelpFormatter,
    )
    parser.add_argument("--config", action="config", help="YAML file of options; flags win")
    parser.add_argument("--recipe", type=str | None, help="first options to start from, see above")
    parser.add_argument("--data", type=str | None, help="table file, IDX/NPZ file or folder")
    parser.add_argument("--name", type=str | None, help="detector to write; default the recipe")
    parser.add_argument("--models", type=str, default="models", help="folder of bundles")
    parser.add_argument("--runs", type=str, default="runs", help="folder of checkpoints")
    parser.add_argument(
        "--detector", choices=(*DETECTORS, "ensemble"), default="vae", help="what learns"
    )
    parser.add_argument("--seed", type=int, default=0, help="decides split, weights and batches")
    parser.add_argument(
        "--alarm_rate", type=float | None, help="share of normal rows that may alarm, 0..1"
    )
    parser.add_argument(
        "--confidence", type=float | None, help="hold the alarm rate with this probability, 0..1"
    )
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run")
    parser.add_class_arguments(DataOptions)
    for name, kind in CONFIGS.items():
        parser.add_class_arguments(kind, name)
    parser.add_class_arguments(AugmentConfig, "augment")
    parser.add_class_arguments(FitConfig, "fit")
    parser.add_class_arguments(Trainer, "trainer", skip=set(OURS), instantiate=False)
    parser.set_defaults({"trainer.devices": 1})
    return parser


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _report(trained: Trained) -> None:
    for line in summary(trained.assessment.metrics, trained.assessment.peers):
        print(line)
    print(f"bundle  {trained.name}@{trained.version} in {trained.path}")
    print(f"report  {Path(trained.path) / 'report' / 'report.html'}")


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the recipe list."""
