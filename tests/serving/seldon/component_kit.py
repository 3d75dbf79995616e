"""Small components, and what is asked of them, for the tests of the component runtime."""

from __future__ import annotations

from typing import Any

from servegraph import jsoncodec
from servegraph.serving.seldon.answers import RawAnswer, Transport
from servegraph.serving.seldon.component import Component
from servegraph.serving.seldon.custom_metrics import CustomMetric
from servegraph.serving.seldon.errors import SeldonNotImplementedError
from servegraph.serving.seldon.identity import UnitIdentity
from servegraph.serving.seldon.methods import OPERATIONS, Operation
from servegraph.serving.seldon.rest import message_to_rest

NODE = UnitIdentity(unit_id="node", image="img:0.1")
ROWS: dict[str, Any] = {"data": {"names": ["a", "b"], "ndarray": [[1, 2], [3, 4]]}}
COUNT = {"type": "COUNTER", "key": "calls", "value": 1}
NOT_DONE = SeldonNotImplementedError("not done")
ROW_OPERATIONS: tuple[Operation, ...] = ("predict", "transform_input", "transform_output")


class Kept:
    """A sink that remembers what was recorded."""

    def __init__(self) -> None:
        self.metrics: list[tuple[CustomMetric, str]] = []
        self.rejected: list[str] = []
        self.rewards: list[float] = []

    def record(self, metric: CustomMetric, method: str) -> None:
        self.metrics.append((metric, method))

    def reject(self, method: str) -> None:
        self.rejected.append(method)

    def feedback(self, reward: float) -> None:
        self.rewards.append(reward)


def answered(component: Component, op: Operation, body: Any, transport: Transport = "rest") -> Any:
    """The answer of a component as JSON."""
    answer = component.call(op, body, transport)
    return answer.value if isinstance(answer, RawAnswer) else jsoncodec.loads(jsoncodec.dumps(message_to_rest(answer)))


def ask(user_object: Any, op: Operation = "predict", body: Any = None, **identity: str) -> Any:
    """The answer of an object's method as JSON."""
    return answered(Component(user_object, UnitIdentity(**identity)), op, ROWS if body is None else body)


def giving(result: Any, **attributes: Any) -> Any:
    """An object whose methods all give the same."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    methods: dict[str, Any] = dict.fromkeys(OPERATIONS, method)
    return type("Giving", (), {**methods, **attributes})()


class Recorder:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def predict(self, X: Any, names: Any, meta: Any = None) -> Any:
        self.calls.append((X, names, meta))
        return X

    transform_input = predict
    transform_output = predict

    def route(self, X: Any, names: Any, meta: Any = None) -> int:
        self.calls.append((X, names, meta))
        return 1

    def aggregate(self, features: Any, names: Any) -> Any:
        self.calls.append((features, names))
        return features[0]

    def send_feedback(self, X: Any, names: Any, reward: float, truth: Any, routing: Any = None) -> None:
        self.calls.append((X, names, reward, truth, routing))
