"""Components with coroutine functions: the same answers as those of plain methods."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from component_kit import NODE, NOT_DONE, ROWS, answered

from servegraph import jsoncodec
from servegraph.serving.seldon.answers import RawAnswer
from servegraph.serving.seldon.component import Component
from servegraph.serving.seldon.errors import SeldonNotImplementedError
from servegraph.serving.seldon.message import Message
from servegraph.serving.seldon.methods import OPERATIONS, Operation
from servegraph.serving.seldon.rest import message_to_rest
from servegraph.serving.seldon.user_model import SeldonResponse


class Async:
    def __init__(self, fails: Exception | None = None) -> None:
        self.fails = fails
        self.calls = 0

    async def predict(self, X: Any, names: Any, meta: Any = None) -> Any:
        await asyncio.sleep(0)
        self.calls += 1
        if self.fails is not None:
            raise self.fails
        return SeldonResponse(X, tags={"t": 1})

    transform_input = predict
    transform_output = predict

    async def route(self, X: Any, names: Any) -> int:
        await asyncio.sleep(0)
        return 1

    async def aggregate(self, features: Any, names: Any) -> Any:
        await asyncio.sleep(0)
        return features[-1]

    async def send_feedback(self, X: Any, names: Any, reward: float, truth: Any) -> None:
        await asyncio.sleep(0)

    async def health_status(self) -> str:
        await asyncio.sleep(0)
        return "up"


class Plain:
    def predict(self, X: Any, names: Any, meta: Any = None) -> Any:
        return SeldonResponse(X, tags={"t": 1})

    transform_input = transform_output = predict

    def route(self, X: Any, names: Any) -> int:
        return 1

    def aggregate(self, features: Any, names: Any) -> Any:
        return features[-1]

    def send_feedback(self, X: Any, names: Any, reward: float, truth: Any) -> None:
        return None

    def health_status(self) -> str:
        return "up"


@pytest.mark.parametrize("op", OPERATIONS)
def test_coroutine_functions_answer_as_plain_methods_do(op: Operation) -> None:
    bodies: dict[str, Any] = {"aggregate": [ROWS, ROWS], "send_feedback": {"request": ROWS, "reward": 1}}
    body = bodies.get(op, ROWS)
    component = Component(Async(), NODE)
    assert component.is_async
    assert not Component(Plain()).is_async
    answer = asyncio.run(component.acall(op, body))
    assert isinstance(answer, Message)
    expected = answered(Component(Plain(), NODE), op, body)
    assert jsoncodec.loads(jsoncodec.dumps(message_to_rest(answer))) == expected
    mixed = asyncio.run(Component(Plain(), NODE).acall(op, body))
    assert isinstance(mixed, Message)
    assert jsoncodec.loads(jsoncodec.dumps(message_to_rest(mixed))) == expected


def test_coroutine_function_that_fails_is_called_once() -> None:
    failing = Async(TypeError("got an unexpected keyword argument 'meta'"))
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        asyncio.run(Component(failing).acall("predict", ROWS))
    assert failing.calls == 1


def test_coroutine_function_that_is_not_implemented_counts_as_missing() -> None:
    answer = asyncio.run(Component(Async(NOT_DONE)).acall("predict", ROWS))
    assert isinstance(answer, Message)
    assert answer.value == []


def test_raw_coroutine_function_is_awaited_and_may_decline() -> None:
    class Model(Plain):
        def __init__(self, declines: bool) -> None:
            self.declines = declines

        async def predict_raw(self, msg: Any) -> Any:
            await asyncio.sleep(0)
            if self.declines:
                raise SeldonNotImplementedError("ask the other one")
            return {"strData": "raw"}

    component = Component(Model(False))
    assert component.is_async
    raw = asyncio.run(component.acall("predict", ROWS))
    assert isinstance(raw, RawAnswer)
    assert raw.value == {"strData": "raw"}
    plain = asyncio.run(Component(Model(True)).acall("predict", ROWS))
    assert isinstance(plain, Message)
    assert plain.meta.tags == {"t": 1}


class Told(Plain):
    """What is asked for the sake of an answer, by coroutine functions."""

    async def tags(self) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"u": 2}

    async def metrics(self, X: Any) -> list[dict[str, Any]]:
        await asyncio.sleep(0)
        return [{"type": "GAUGE", "key": "rows", "value": len(X)}]

    async def class_names(self) -> list[str]:
        raise NOT_DONE


def test_coroutine_functions_for_tags_metrics_and_names_are_awaited() -> None:
    component = Component(Told())
    assert component.is_async
    answer = asyncio.run(component.acall("predict", ROWS))
    assert isinstance(answer, Message)
    assert (answer.meta.tags, answer.names) == ({"t": 1, "u": 2}, ["t:0", "t:1"])
    assert answer.meta.metrics == [{"type": "GAUGE", "key": "rows", "value": 2}]


@pytest.mark.parametrize("name", ["tags", "metrics", "class_names"])
def test_coroutine_function_for_tags_metrics_or_names_that_fails_is_raised(name: str) -> None:
    async def fail(self: Any) -> Any:
        raise LookupError("nothing to say")

    component = Component(type("Failing", (Plain,), {name: fail})())
    with pytest.raises(LookupError, match="nothing to say"):
        asyncio.run(component.acall("predict", ROWS))


def test_score_of_an_outlier_detector_may_be_a_coroutine_function() -> None:
    class Detector:
        async def score(self, X: Any, names: Any) -> Any:
            await asyncio.sleep(0)
            return X[:, 0]

    component = Component(Detector())
    assert component.is_async
    answer = asyncio.run(component.acall("transform_input", ROWS))
    assert isinstance(answer, Message)
    assert answer.meta.tags == {"outlierScore": [1, 3]}
