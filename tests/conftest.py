"""Fixtures that every room's tests use."""

import os
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the checkout; absent elsewhere, required in CI."""
    if SHARED_DATA.is_dir():
        return SHARED_DATA
    if os.environ.get("CI"):
        pytest.fail(f"CI must have the data sets at {SHARED_DATA}")
    pytest.skip("the data sets beside the checkout (../shared/data) are not on this machine")
