"""TorchServe's keys, which expire: read from its file and renewed well before they do.

A renewed key is the only one: what was asked with the one before and has not been checked yet is
refused. Whoever asks with `inference()` asks once more when refused.
"""

import json
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from amiss_export.errors import AmissError

KEY_FILE = "key_file.json"
MANAGEMENT, INFERENCE = "management", "inference"
_API = "API"  # renews the others, and does not expire


@dataclass(frozen=True)
class _Key:
    text: str
    renew_at: float  # seconds since the epoch


class Keys:
    """The keys of one running TorchServe, from any thread.

    path: the file TorchServe wrote. renew(kind, api_key): has it write a new one. now: the wall
    clock, as TorchServe judges its keys by its own.
    """

    def __init__(
        self, path: Path, renew: Callable[[str, str], None], *, now: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._renew = renew
        self._now = now
        self._renewing = threading.Lock()
        self._api, self._keys = self._read()

    def management(self) -> str:
        """The key for the management port."""
        return self._keys[MANAGEMENT].text

    def inference(self) -> str:
        """The key to ask for predictions with, over HTTP and gRPC."""
        return self._keys[INFERENCE].text

    def renew_due(self) -> None:
        """Renew the keys that have lived half of their life. Raises what `renew` does."""
        for kind in (MANAGEMENT, INFERENCE):
            if self._now() >= self._keys[kind].renew_at:
                self._renew_one(kind)

    def _renew_one(self, kind: str) -> None:
        with self._renewing:
            self._renew(kind, self._api)
            _, fresh = self._read()
            self._keys = {**self._keys, kind: fresh[kind]}

    def _read(self) -> tuple[str, dict[str, _Key]]:
        try:
            mode = self._path.stat().st_mode
            written = json.loads(self._path.read_text())
            keys = {kind: self._key(written[kind]) for kind in (MANAGEMENT, INFERENCE)}
            api = str(written[_API]["key"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise AmissError(f"{self._path} is no key file of TorchServe: {error!r}") from error
        if stat.S_IMODE(mode) & 0o077:
            raise AmissError(f"{self._path} can be read by others (mode {stat.filemode(mode)})")
        return api, keys

    def _key(self, written: dict[str, str]) -> _Key:
        now = self._now()
        expires = datetime.fromisoformat(written["expiration time"]).timestamp()
        return _Key(written["key"], renew_at=now + (expires - now) / 2)
