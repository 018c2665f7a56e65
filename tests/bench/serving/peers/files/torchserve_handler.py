"""TorchServe: the raw pixels of all requests in one run of ONNX Runtime, a list of scores each."""

from pathlib import Path

import numpy as np
import onnxruntime


class Handler:
    def initialize(self, context):
        properties, manifest = context.system_properties, context.manifest
        path = Path(properties["model_dir"], manifest["model"]["serializedFile"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), options)

    def handle(self, data, context):
        inputs = [np.frombuffer(row["body"], dtype=np.uint8) for row in data]
        rows = np.concatenate(inputs).reshape(-1, 1, 28, 28)
        (scores,) = self.session.run(["score"], {"x": rows})
        ends = np.cumsum([len(x) // (28 * 28) for x in inputs])
        return [part.tolist() for part in np.split(scores, ends[:-1])]
