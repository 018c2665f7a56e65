"""Triton's python backend: the rows of all requests in one run of ONNX Runtime."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, (HERE / "site_packages.txt").read_text())  # the backend's stub knows no venv

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402


class TritonPythonModel:
    def initialize(self, args):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(HERE / "model.onnx"), options)

    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(r, "images").as_numpy() for r in requests]
        rows = inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
        (scores,) = self.session.run(["score"], {"x": rows})
        ends = np.cumsum([len(x) for x in inputs])
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("score", scores[end - len(x) : end])])
            for x, end in zip(inputs, ends, strict=True)
        ]
