"""ONNX Runtime, silent. Import it from here, never directly.

Official builds report to their maker and keep an identifier on disk, on Linux since 1.29, unless
this variable is set before the library loads. An operator who wants that sets it to 0.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

__all__ = ["onnxruntime"]
