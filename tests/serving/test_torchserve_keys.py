"""Keys are read from TorchServe's file and renewed at half of their life."""

import json
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from amiss_export.errors import AmissError
from amiss_serving.torchserve.keys import Keys


class FakeTorchServe:
    """Writes a key file as TorchServe does. now: seconds since the epoch, set by the test."""

    def __init__(self, path: Path, *, life_s: float) -> None:
        self.path = path
        self.life_s = life_s
        self.now = 1_000_000.0
        self.renewals: list[tuple[str, str]] = []
        self._written = {"API": {"key": "api"}}
        for kind in ("management", "inference"):
            self._write(kind)

    def renew(self, kind: str, api_key: str) -> None:
        self.renewals.append((kind, api_key))
        self._write(kind)

    def _write(self, kind: str) -> None:
        expires = datetime.fromtimestamp(self.now + self.life_s, UTC).isoformat()
        text = f"{kind}-{len(self.renewals)}"
        self._written[kind] = {"key": text, "expiration time": expires}
        self.path.write_text(json.dumps(self._written))
        self.path.chmod(0o600)


@pytest.fixture
def fake(tmp_path: Path) -> FakeTorchServe:
    return FakeTorchServe(tmp_path / "key_file.json", life_s=60)


def keys_of(fake: FakeTorchServe) -> Keys:
    return Keys(fake.path, fake.renew, now=lambda: fake.now)


def test_keys_are_renewed_at_half_of_their_life_and_not_before(fake: FakeTorchServe) -> None:
    """After 29 of 60 s they are the first ones, after 30 s new ones, with the API key's help."""
    keys = keys_of(fake)
    fake.now += 29
    keys.renew_due()
    assert (keys.management(), keys.inference(), fake.renewals) == (
        "management-0",
        "inference-0",
        [],
    )
    fake.now += 1
    keys.renew_due()
    assert (keys.management(), keys.inference()) == ("management-1", "inference-2")
    assert fake.renewals == [("management", "api"), ("inference", "api")]
    keys.renew_due()
    assert len(fake.renewals) == 2


def test_keys_that_have_expired_are_renewed_all_the_same(fake: FakeTorchServe) -> None:
    """A machine that slept through their end has new ones at the next look."""
    keys = keys_of(fake)
    fake.now += 3600
    keys.renew_due()
    assert keys.inference() == "inference-2"


def test_a_renewal_that_fails_leaves_the_keys_and_is_tried_again(fake: FakeTorchServe) -> None:
    """The old key stays in use, and the next look renews it."""
    is_there = threading.Event()

    def renew(kind: str, api_key: str) -> None:
        if not is_there.is_set():
            raise AmissError("not now")
        fake.renew(kind, api_key)

    keys = Keys(fake.path, renew, now=lambda: fake.now)
    fake.now += 40
    with pytest.raises(AmissError, match="not now"):
        keys.renew_due()
    assert keys.inference() == "inference-0"
    is_there.set()
    keys.renew_due()
    assert keys.inference() == "inference-2"


@pytest.mark.parametrize("text", ["", "{", "{}", '{"management": {"key": "x"}}', "[]"])
def test_half_a_file_is_no_key_file(text: str, fake: FakeTorchServe) -> None:
    """What TorchServe has not finished writing is refused, for the next look to try again."""
    fake.path.write_text(text)
    with pytest.raises(AmissError, match="no key file"):
        keys_of(fake)


def test_a_key_file_that_others_can_read_is_refused(fake: FakeTorchServe) -> None:
    """Mode 0640 is too open."""
    fake.path.chmod(0o640)
    with pytest.raises(AmissError, match="can be read by others"):
        keys_of(fake)
