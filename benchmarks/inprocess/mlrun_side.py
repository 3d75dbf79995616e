"""MLRun in process; run by its own environment's Python, prints JSON."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
from functools import partial

# Before MLRun is imported: its own messages only for errors, no service to look for, nothing written beside the code.
os.environ.setdefault("MLRUN_LOG_LEVEL", "ERROR")
os.environ.setdefault("MLRUN_DBPATH", "")
os.environ.setdefault("MLRUN_ARTIFACT_PATH", tempfile.gettempdir())

import mlrun
from cases import (
    BRANCH_ROWS,
    FLOW_LENGTHS,
    MODEL_BODY,
    MODEL_PATH,
    add_one,
    count_rows,
    expect,
    passed_on,
    rows_body,
)
from mlrun.serving import V2ModelServer
from mlrun.serving.server import MockEvent, create_graph_server
from timing import measure, measure_awaited


class M(V2ModelServer):
    """The trivial model."""

    def load(self):
        self.model = True

    def predict(self, request):
        return request["inputs"]


def new_function():
    return mlrun.new_function("bench", project="bench", kind="serving", image="mlrun/mlrun")


def linear_function(engine: str, length: int):
    function = new_function()
    step = function.set_topology("flow", engine=engine)
    for number in range(length):
        step = step.to(name=f"s{number}", handler=add_one)
    if engine == "async":
        step.respond()
    return function


def branch_function():
    function = new_function()
    graph = function.set_topology("flow", engine="async")
    graph.to(name="first", handler=passed_on)
    graph.add_step(name="a", handler=count_rows, after="first").respond()
    graph.add_step(name="b", handler=count_rows, after="first")
    return function


def measure_sync(seconds: float) -> dict[str, dict[str, float]]:
    results = {}
    function = new_function()
    function.set_topology("router")
    function.add_model("m", class_name="M", model_path=".")
    server = function.to_mock_server(namespace=[sys.modules[__name__]])
    expect(server.test(MODEL_PATH, MODEL_BODY)["outputs"], [5], "router")
    results["router"] = measure(lambda: server.test(MODEL_PATH, MODEL_BODY), seconds)
    for length in FLOW_LENGTHS:
        server = linear_function("sync", length).to_mock_server()
        expect(server.test(body={"x": 1}), {"x": 1 + length}, f"sync flow of {length}")
        results[f"sync_flow_{length}"] = measure(lambda server=server: server.test(body={"x": 1}), seconds)
    return results


def measure_branches(seconds: float) -> dict[str, dict[str, float]]:
    results = {}
    server = branch_function().to_mock_server()
    for rows in BRANCH_ROWS:
        body = rows_body(rows)
        expect(server.test(body=body), {"rows": rows}, f"branch with {rows} rows")
        results[f"branch_{rows}"] = measure(partial(server.test, body=body), seconds)
    server.wait_for_completion()
    return results


async def measure_in_loop(seconds: float) -> dict[str, dict[str, float]]:
    """As deployed: not the mock's thread and queue but storey's source in the caller's own loop."""
    results = {}
    for length in FLOW_LENGTHS:
        function = linear_function("async", length)
        server = create_graph_server(graph=function.spec.graph, parameters={}, function_name="bench", project="bench")
        server.init_states(context=None, namespace=[], logger=mlrun.utils.logger, is_mock=False)
        server.init_object([])

        async def call(server=server):
            return await server.run(MockEvent(body={"x": 1}), get_body=True)

        answer = await call()
        expect(getattr(answer, "body", answer), {"x": 1 + length}, f"async flow of {length}")
        results[f"async_flow_{length}"] = await measure_awaited(call, seconds)
        await server.wait_for_completion()
    return results


def main() -> None:
    seconds = float(sys.argv[1])
    cases = measure_sync(seconds)
    cases |= asyncio.run(measure_in_loop(seconds))
    cases |= measure_branches(seconds)
    version = importlib.metadata.version("mlrun")
    print(json.dumps({"version": version, "python": platform.python_version(), "cases": cases}))


if __name__ == "__main__":
    main()
