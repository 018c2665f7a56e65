"""MLServer: a custom runtime around ONNX Runtime; MLServer itself batches."""

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import get_model_uri


class Scorer(MLModel):
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = await get_model_uri(self._settings)
        self.session = onnxruntime.InferenceSession(path, options)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = NumpyCodec.decode_input(payload.inputs[0])
        (scores,) = self.session.run(["score"], {"x": np.ascontiguousarray(x, dtype=np.uint8)})
        output = NumpyCodec.encode_output("score", scores)
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=[output])
