"""What runs in a TorchServe worker when tests look at the process, not at a model.

A request is a command: `pid` is answered with the worker's process id, `sleep S` after S seconds,
`env NAME` with a variable of its environment.
"""

import os
import time
from collections.abc import Mapping, Sequence


class Handler:
    """Loads nothing, unless its model file tells it to fail."""

    def initialize(self, context: object) -> None:
        model = os.path.join(context.system_properties["model_dir"], "model.pt")  # type: ignore[attr-defined]  # noqa: PTH118
        with open(model) as file:  # noqa: PTH123
            text = file.read()
        if text:
            raise ValueError(text)

    def handle(self, data: Sequence[Mapping[str, bytes]], context: object) -> list[str]:
        return [self._obey(bytes(row["body"]).decode()) for row in data]

    def _obey(self, command: str) -> str:
        if command.startswith("sleep "):
            time.sleep(float(command.removeprefix("sleep ")))
        if command.startswith("env "):
            return os.environ.get(command.removeprefix("env "), "unset")
        return str(os.getpid())
