"""TorchServe's process under the guard, from its start to its end."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from amiss_serving.torchserve import guard

_LAST_LINES_S = 2.0
_OWNER_ONLY = 0o077  # as a mask: TorchServe writes its key file readable by all, then mends it


class Child:
    """A command under the guard, running. What it prints goes to `take`, line by line.

    remove: paths that the guard deletes once the command has ended, whatever becomes of us.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        remove: Sequence[Path],
        take: Callable[[str], None],
    ) -> None:
        self._group: int | None = None
        self._process = subprocess.Popen(  # noqa: S603  the command is ours
            [sys.executable, "-P", "-m", guard.__name__, *map(str, remove), "--", *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a terminal's Ctrl-C is for us alone
            umask=_OWNER_ONLY,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, args=(take,), daemon=True)
        self._reader.start()

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """End it and all that it started; return when nothing is left."""
        if self._process.stdin:  # the guard ends the group when this closes
            self._process.stdin.close()
        if self._process.wait() < 0 and self._group is not None:  # the guard itself was killed
            with suppress(ProcessLookupError):
                os.killpg(self._group, signal.SIGKILL)
        self._reader.join(_LAST_LINES_S)

    def _read(self, take: Callable[[str], None]) -> None:
        if self._process.stdout is None:  # it is a pipe: for the type checker
            return
        with self._process.stdout as lines:
            for line in lines:
                if line.startswith(guard.GROUP):  # not always the first: the command runs by then
                    self._group = int(line.removeprefix(guard.GROUP))
                else:
                    take(line)
