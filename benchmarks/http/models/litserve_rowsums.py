"""LitServe. It calls the hooks by these parameter names."""

import os

import litserve
import numpy as np


class RowSums(litserve.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        tensor = request["inputs"][0]
        return np.asarray(tensor["data"]).reshape(tensor["shape"])

    def predict(self, x):
        return x.sum(axis=1)

    def encode_response(self, output):
        return {"outputs": [{"name": "y", "shape": list(output.shape), "datatype": "FP64", "data": output.tolist()}]}


if __name__ == "__main__":
    server = litserve.LitServer(RowSums(), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=int(os.environ["BENCH_HTTP_PORT"]),
        num_api_servers=1,
        log_level="error",
        access_log=False,
        generate_client_file=False,
    )
