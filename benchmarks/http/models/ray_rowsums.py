"""Ray Serve: one replica, one proxy, a cluster of this process's own."""

import os
import signal

import numpy as np
import ray
from ray import serve


@serve.deployment(num_replicas=1, max_ongoing_requests=256, ray_actor_options={"num_cpus": 1})
class RowSums:
    async def __call__(self, request):
        body = await request.json()
        tensor = body["inputs"][0]
        sums = np.asarray(tensor["data"]).reshape(tensor["shape"]).sum(axis=1)
        return {"outputs": [{"name": "y", "shape": list(sums.shape), "datatype": "FP64", "data": sums.tolist()}]}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
    quiet = {"enable_access_log": False, "log_level": "ERROR"}
    options = {"host": "127.0.0.1", "port": int(os.environ["BENCH_HTTP_PORT"])}
    serve.start(http_options=options, logging_config=quiet)
    serve.run(RowSums.options(logging_config=quiet).bind(), route_prefix="/")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
