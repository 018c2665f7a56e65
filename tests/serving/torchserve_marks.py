"""Marks of tests that run TorchServe, an extra that not everybody installs; CI does."""

import os
from importlib.util import find_spec

import pytest

needs_torchserve = pytest.mark.skipif(
    find_spec("ts") is None and "CI" not in os.environ,
    reason="TorchServe is not installed; pip install -c constraints.txt -e '.[torchserve]'",
)
