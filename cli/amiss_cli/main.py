"""The `amiss` command: a table of sub-commands, each loaded when it is asked for."""

import importlib
import os
import sys
from collections.abc import Callable, Sequence

# name -> (module, one line of help)
COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("amiss_cli.train", "learn what normal looks like and write a bundle"),
    "sweep": ("amiss_cli.sweep", "train over classes and seeds, collect the figures in a CSV file"),
    "evaluate": ("amiss_cli.evaluate", "measure a bundle on labelled data, beside simple peers"),
    "sample": ("amiss_cli.sample", "draw what a bundle believes normal looks like"),
    "score": ("amiss_cli.score", "score a file or a folder, offline or against a service"),
    "models": (
        "amiss_cli.models",
        "list, verify and recalibrate bundles, promote and roll back",
    ),
    "export": ("amiss_cli.export", "write a bundle as an archive for TorchServe"),
    "serve": ("amiss_cli.serve", "answer over gRPC and HTTP"),
    "torchserve": ("amiss_cli.torchserve", "run the bundles in a fenced TorchServe"),
    "bench": ("amiss_cli.bench", "measure which settings of serve suit a bundle on this machine"),
}
EXTRAS = {
    **dict.fromkeys(("export", "serve", "bench"), "serve"),
    **dict.fromkeys(("train", "sweep", "evaluate", "sample"), "train"),
    "torchserve": "torchserve",
}
DONE, FAILED, BAD_INPUT = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 failure, 2 bad input or usage."""
    try:
        code = _dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output went away, e.g. `amiss ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code


def _dispatch(arguments: list[str]) -> int:
    first = arguments[0] if arguments else "--help"
    if first in ("-h", "--help"):
        print(_usage())
        return DONE
    if first == "--version":
        from importlib.metadata import version

        print(f"amiss {version('amiss')}")
        return DONE
    if first not in COMMANDS:
        print(f"amiss: no command {first!r}\n\n{_usage()}", file=sys.stderr)
        return BAD_INPUT
    return _run(first, arguments[1:])


def _run(command: str, arguments: list[str]) -> int:
    from amiss_export.errors import AmissError, BadInput, BundleNotFound, BundleRefused

    try:
        sub_command: Callable[[list[str]], int] = importlib.import_module(COMMANDS[command][0]).main
        return sub_command(arguments)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(command, "train,serve")
        print(
            f"amiss {command}: {error.name} is not installed; pip install 'amiss[{extra}]'",
            file=sys.stderr,
        )
        return FAILED
    except (BadInput, BundleNotFound, BundleRefused) as error:
        print(f"amiss {command}: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(f"amiss {command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except (AmissError, OSError) as error:  # OSError: a full disk, a folder that is not ours
        print(f"amiss {command}: {error}", file=sys.stderr)
        return FAILED


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: amiss COMMAND [options]",
            "",
            "Anomaly detection from training to serving.",
            "",
            *lines,
            "",
            "amiss COMMAND --help shows a command's options with their defaults; amiss --version.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
