"""Triton through pytriton: a Python function behind the C++ server, which batches for it."""

import os

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


@batch
def row_sums(x):
    return {"y": x.sum(axis=1, keepdims=True)}


if __name__ == "__main__":
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=int(os.environ["BENCH_HTTP_PORT"]),
        grpc_port=int(os.environ["BENCH_GRPC_PORT"]),
        metrics_port=int(os.environ["BENCH_METRICS_PORT"]),
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="rowsums",
            infer_func=row_sums,
            inputs=[Tensor(name="x", dtype=np.float64, shape=(4,))],
            outputs=[Tensor(name="y", dtype=np.float64, shape=(1,))],
            config=ModelConfig(max_batch_size=64),
        )
        triton.serve()
