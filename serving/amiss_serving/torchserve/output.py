"""What TorchServe and its workers print: warnings go to our log, the last lines are kept."""

import json
import logging
import re
import threading
from collections import defaultdict, deque
from dataclasses import dataclass

_KEPT = 40  # lines of each model, and of TorchServe itself: a traceback
_WORKER = re.compile(r"W-\d+-(.+)$")  # the name of a thread that speaks for a worker
_TOLD = 5  # lines of them that an error names
_STACK = re.compile(r"\s*(at |\.\.\. \d|$)")
_TRACEBACK = "Traceback "
_STREAM = re.compile("-std(out|err)$")
_MOST_NAME = 25  # characters of NAME_VERSION in it
_RETRY = "Retry worker"  # TorchServe's word for a worker that died
# What every worker prints when it starts, and TorchServe when it has one.
_USUAL = re.compile(
    r"WARNING: sun.reflect|nvidia-smi not available|Model server started|\d+ Worker disconnected|"
    r"s_name_part0=|Listening on port|Successfully loaded|\[PID\]|Torch worker started|"
    r"Python runtime|Connection accepted|model_name:|Connecting to|Auto recovery|"
    r"Load model failed|Backend worker process died"
)
logger = logging.getLogger("torchserve")


@dataclass(frozen=True)
class _Line:
    level: int
    logger: str
    thread: str
    message: str


class Output:
    """Takes what TorchServe prints, line by line."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._own: deque[str] = deque(maxlen=_KEPT)
        self._of_workers: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=_KEPT))
        self._deaths: defaultdict[str, int] = defaultdict(int)

    def take(self, text: str) -> None:
        """One line, as printed."""
        line = _parse(text)
        worker = _WORKER.match(line.thread)
        with self._lock:
            if worker is None:
                if not _STACK.match(line.message):  # Java's traces would leave no room for causes
                    self._own.append(line.message)
            elif line.message.startswith(_RETRY):
                self._deaths[worker[1]] += 1
            else:
                self._of_workers[_STREAM.sub("", worker[1])].append(line.message)
        if line.message:
            logger.log(line.level, line.message, extra={"fields": {"thread": line.thread}})

    def deaths(self, name: str, version: str) -> int:
        """How often a worker of the model has died so far."""
        return self._deaths[_key(name, version)]

    def last_lines(self, name: str, version: str) -> list[str]:
        """What the model's workers printed last, tracebacks and all."""
        with self._lock:
            return list(self._of_workers[_key(name, version)])

    def cause(self, name: str, version: str) -> str:
        """The last exception of the model's workers, or else what they printed last, on a line."""
        told = [line for line in self.last_lines(name, version) if not _USUAL.match(line)]
        starts = [i for i, line in enumerate(told) if line.startswith(_TRACEBACK)]
        if starts:  # without the traceback's own lines, which are indented
            told = [line for line in told[starts[-1] + 1 :] if not line.startswith(" ")]
        return " | ".join(told[-_TOLD:]) or "its worker printed nothing"

    def own_cause(self) -> str:
        """What TorchServe itself printed last, in one line."""
        with self._lock:
            told = [line for line in self._own if line and not _USUAL.match(line)]
        return " | ".join(told[-_TOLD:]) or "it printed nothing"


def _parse(text: str) -> _Line:
    """The line as log4j was told to write it; anything else, Java's own warnings, is no alarm."""
    try:
        said = json.loads(text)
        message = f"{said['message']} {said['error']}".rstrip()
        level = getattr(logging, said["level"], logging.WARNING)
        if level < logging.WARNING:
            level = logging.DEBUG
        return _Line(level, said["logger"], said["thread"], message)
    except (ValueError, KeyError, TypeError):
        return _Line(logging.DEBUG, "", "", text.rstrip())


def _key(name: str, version: str) -> str:
    return f"{name}_{version}"[:_MOST_NAME]
