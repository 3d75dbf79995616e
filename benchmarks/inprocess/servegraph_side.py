"""servegraph in process; run by the Python that runs the benchmark, prints JSON."""

from __future__ import annotations

import asyncio
import json
import platform
import sys
from functools import partial
from typing import Any

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
from timing import measure, measure_awaited

import servegraph


class M(servegraph.V2ModelServer):
    """The trivial model."""

    def load(self) -> None:
        self.model = True

    def predict(self, request: dict[str, Any]) -> Any:
        return request["inputs"]


def linear_function(engine: str, length: int) -> servegraph.ServingFunction:
    function = servegraph.new_function("bench", kind="serving")
    step = function.set_topology("flow", engine=engine)
    for number in range(length):
        step = step.to(name=f"s{number}", handler=add_one)
    step.respond()
    return function


def branch_function(**declared: bool) -> servegraph.ServingFunction:
    function = servegraph.new_function("bench", kind="serving")
    graph = function.set_topology("flow", engine="async")
    graph.to(name="first", handler=passed_on)
    graph.add_step(name="a", handler=count_rows, after="first", **declared).respond()
    graph.add_step(name="b", handler=count_rows, after="first", **declared)
    return function


def measure_sync(seconds: float) -> dict[str, dict[str, float]]:
    results = {}
    function = servegraph.new_function("bench", kind="serving")
    function.set_topology("router")
    function.add_model("m", class_name=M, model_path=".")
    server = function.to_mock_server()
    expect(server.test(MODEL_PATH, MODEL_BODY)["outputs"], [5], "router")
    results["router"] = measure(lambda: server.test(MODEL_PATH, MODEL_BODY), seconds)
    for length in FLOW_LENGTHS:
        flow = linear_function("sync", length).to_mock_server()
        expect(flow.test(body={"x": 1}), {"x": 1 + length}, f"sync flow of {length}")
        results[f"sync_flow_{length}"] = measure(lambda flow=flow: flow.test(body={"x": 1}), seconds)  # type: ignore[misc]
    return results


def measure_branches(seconds: float) -> dict[str, dict[str, float]]:
    results = {}
    for suffix, declared in (("", {}), ("_readonly", {"mutates": False})):
        server = branch_function(**declared).to_mock_server()
        for rows in BRANCH_ROWS:
            body = rows_body(rows)
            expect(server.test(body=body), {"rows": rows}, f"branch{suffix} with {rows} rows")
            results[f"branch_{rows}{suffix}"] = measure(partial(server.test, body=body), seconds)
        server.wait_for_completion()
    return results


async def measure_in_loop(seconds: float) -> dict[str, dict[str, float]]:
    """In the caller's own loop, as the HTTP edge runs it."""
    results = {}
    for length in FLOW_LENGTHS:
        server = linear_function("async", length).to_mock_server()

        async def call(server: Any = server) -> Any:
            return await server.run_async(servegraph.Event(body={"x": 1}))

        answer = await call()
        expect(getattr(answer, "body", answer), {"x": 1 + length}, f"async flow of {length}")
        results[f"async_flow_{length}"] = await measure_awaited(call, seconds)
    return results


def main() -> None:
    seconds = float(sys.argv[1])
    cases = measure_sync(seconds)
    cases |= asyncio.run(measure_in_loop(seconds))
    cases |= measure_branches(seconds)
    print(json.dumps({"version": servegraph.__version__, "python": platform.python_version(), "cases": cases}))


if __name__ == "__main__":
    main()
