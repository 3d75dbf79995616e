"""Components with coroutine functions: the same answers as those of plain methods."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from component_kit import NODE, NOT_DONE, ROWS, answered

from servegraph import jsoncodec
from servegraph.errors import GraphError
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


@pytest.mark.parametrize("name", ["tags", "metrics", "class_names", "score"])
def test_method_that_nothing_awaits_cannot_be_async(name: str, caplog: pytest.LogCaptureFixture) -> None:
    async def method(self: Any, *args: Any) -> Any:
        return None

    user_object = type("Wrong", (), {name: method})()
    component = Component(user_object)
    with caplog.at_level(logging.ERROR, logger="servegraph"):
        component.load()
    assert f"Wrong.{name}() cannot be async: only operations can; requests that need it fail" in caplog.text
    with pytest.raises(GraphError, match=rf"Wrong\.{name}\(\) cannot be async"):
        component.call("transform_input", ROWS)
