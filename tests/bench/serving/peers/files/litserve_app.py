"""LitServe: python litserve_app.py MODEL.onnx PORT MAX_BATCH_SIZE BATCH_TIMEOUT_S."""

import base64
import sys

import litserve
import numpy as np
import onnxruntime


class Scorer(litserve.LitAPI):
    def setup(self, device):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(sys.argv[1], options)

    def decode_request(self, request):
        pixels = np.frombuffer(base64.b64decode(request["pixels"]), dtype=np.uint8)
        return pixels.reshape(-1, 1, 28, 28)

    def batch(self, inputs):
        self.ends = np.cumsum([len(x) for x in inputs])
        return np.concatenate(inputs)

    def predict(self, x):
        return self.session.run(["score"], {"x": x})[0]

    def unbatch(self, output):
        return np.split(output, self.ends[:-1])

    def encode_response(self, output):
        return output.tolist()


if __name__ == "__main__":
    batch_size, timeout_s = int(sys.argv[3]), float(sys.argv[4])
    api = Scorer(max_batch_size=batch_size, batch_timeout=timeout_s)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning"
    )
