"""KServe. Importing it parses `sys.argv`, so the ports come by the environment."""

import os

from kserve import InferOutput, InferResponse, Model, ModelServer


class RowSums(Model):
    def __init__(self, name):
        super().__init__(name)
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        sums = payload.inputs[0].as_numpy().sum(axis=1)
        output = InferOutput(name="y", shape=list(sums.shape), datatype="FP64", data=sums.tolist())
        return InferResponse(response_id=payload.id or "0", model_name=self.name, infer_outputs=[output])


if __name__ == "__main__":
    server = ModelServer(
        http_port=int(os.environ["BENCH_HTTP_PORT"]),
        grpc_port=int(os.environ["BENCH_GRPC_PORT"]),
        workers=1,
        enable_latency_logging=False,
        access_log_format=None,
    )
    server.start([RowSums("rowsums")])
