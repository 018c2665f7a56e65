"""TorchServe as a runtime: the handler of its archives, and the fence around its process."""

from pathlib import Path

HANDLER = Path(__file__).with_name("handler.py")  # goes into every archive as it is
