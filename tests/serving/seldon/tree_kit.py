"""Small components, and deployments made of them, for the tests of Seldon trees."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np

from servegraph.runtimes.function import ServingFunction
from servegraph.runtimes.seldon.deployment import function_from_deployment
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.user_model import SeldonResponse

REQUEST: dict[str, Any] = {"data": {"ndarray": [[1.0, 2.0]]}}


class Add:
    """Adds a number in whatever it is asked to do, and says so in tags and metrics."""

    def __init__(self, by: float = 1.0, name: str = "") -> None:
        self.by = by
        self.name = name
        self.seen: list[Any] = []
        self.feedback: list[tuple[float, Any]] = []

    def predict(self, X: Any, names: Any, meta: Any = None) -> Any:
        self.seen.append(meta)
        tags = {self.name: self.by, "last": self.name} if self.name else {}
        metrics = [{"type": "COUNTER", "key": self.name, "value": 1}] if self.name else []
        return SeldonResponse(X + self.by, tags=tags, metrics=metrics)

    transform_input = predict
    transform_output = predict

    def aggregate(self, X: list[Any], names: Any) -> Any:
        return SeldonResponse(np.sum(X, axis=0) + self.by, tags={"last": self.name} if self.name else {})

    def send_feedback(self, X: Any, names: Any, reward: float, truth: Any, routing: Any = None) -> None:
        self.feedback.append((reward, routing))


class AddAsync(Add):
    """The same, as coroutines."""

    async def predict(self, X: Any, names: Any, meta: Any = None) -> Any:
        await asyncio.sleep(0)
        return super().predict(X, names, meta)

    transform_input = predict
    transform_output = predict


class Route:
    """Always chooses one child; has a tag and a metric of its own."""

    def __init__(self, to: int = 0, name: str = "") -> None:
        self.to = to
        self.name = name
        self.feedback: list[tuple[float, Any]] = []

    def route(self, X: Any, names: Any) -> int:
        X += 1000  # what a router does to its copy is seen by nobody
        return self.to

    def tags(self) -> dict[str, Any]:
        return {"router": self.to}

    def metrics(self) -> list[dict[str, Any]]:
        return [{"type": "GAUGE", "key": "chosen", "value": self.to}]

    def send_feedback(self, X: Any, names: Any, reward: float, truth: Any, routing: Any = None) -> None:
        self.feedback.append((reward, routing))


class AddAndRoute(Add):
    """Adds, and chooses as well."""

    def __init__(self, by: float, to: int) -> None:
        super().__init__(by)
        self.to = to

    def route(self, X: Any, names: Any) -> int:
        return self.to


class Fail:
    """Fails in each operation, as it is told."""

    def __init__(self, how: str = "user") -> None:
        self.how = how

    def predict(self, X: Any, names: Any) -> Any:
        if self.how == "user":
            raise ValueError("the model is broken")
        if self.how == "told":
            raise SeldonMicroserviceException("no such row", status_code=404, reason="NO_ROW")
        return object()

    route = transform_input = transform_output = predict

    def aggregate(self, X: Any, names: Any) -> Any:
        return self.predict(X, names)

    def send_feedback(self, X: Any, names: Any, reward: float, truth: Any) -> Any:
        return self.predict(X, names)


def node(name: str, kind: str = "MODEL", *children: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A node of a graph."""
    spec: dict[str, Any] = {"name": name, "type": kind, **fields}
    if children:
        spec["children"] = list(children)
    return spec


def hard(name: str, implementation: str, *children: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A node that needs no code."""
    spec: dict[str, Any] = {"name": name, "implementation": implementation, **fields}
    if children:
        spec["children"] = list(children)
    return spec


def predictor(graph: dict[str, Any], name: str = "main", **fields: Any) -> dict[str, Any]:
    return {"name": name, "graph": graph, **fields}


def deployment(*predictors: dict[str, Any], name: str = "tree", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "machinelearning.seldon.io/v1",
        "kind": "SeldonDeployment",
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"predictors": list(predictors), **spec},
    }


def function_of(graph: dict[str, Any], components: Mapping[str, Any] | None = None, **fields: Any) -> ServingFunction:
    """The function of a deployment with this graph alone."""
    return function_from_deployment(deployment(predictor(graph, **fields)), components=components)


def ask(server: Any, body: Any = None, path: str = "/api/v1.0/predictions", **more: Any) -> Any:
    """The answer of a mock server, with arrays as lists."""
    return plain(server.test(path, REQUEST if body is None else body, **more))


def plain(value: Any) -> Any:
    """A value with its arrays as lists."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return value


def rows(answer: Any) -> Any:
    """The numbers of an answer."""
    data = plain(answer)["data"]
    return data["ndarray"] if "ndarray" in data else data["tensor"]["values"]
