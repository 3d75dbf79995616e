"""MLServer without its worker pool, which costs more than it gives for a model this small."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse, ResponseOutput


class RowSums(MLModel):
    async def load(self):
        return True

    async def predict(self, payload):
        sums = NumpyCodec.decode_input(payload.inputs[0]).sum(axis=1)
        output = ResponseOutput(name="y", shape=list(sums.shape), datatype="FP64", data=sums.tolist())
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=[output])
