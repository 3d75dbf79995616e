"""A component: any object with some of Seldon's methods, looked at once, called with messages.

For each operation one of these answers, as in Seldon's own runtime:

1. a method of the operation and the transport (``predict_rest``, ``predict_grpc``),
2. its low-level method (``predict_raw``), unless it raises `SeldonNotImplementedError`,
3. its plain method (``predict``), whose result becomes a message with names, tags and metrics,
4. what stands for a missing method: an empty result, the input unchanged, or an error.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from servegraph.errors import GraphError, closest
from servegraph.graph.resolve import is_async
from servegraph.serving.seldon.answers import NO_REQUEST, RawAnswer, Transport, answer, continued
from servegraph.serving.seldon.custom_metrics import CustomMetrics
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.identity import UnitIdentity
from servegraph.serving.seldon.message import Feedback, Message, Meta
from servegraph.serving.seldon.raw import LowLevel, is_not_implemented, low_level, read
from servegraph.serving.seldon.signatures import Invoke, takes_feedback, takes_lists, takes_little, takes_rows

logger = logging.getLogger("servegraph.seldon")

Operation: TypeAlias = Literal[
    "predict", "transform_input", "transform_output", "route", "aggregate", "send_feedback", "health_status"
]
OPERATIONS: Final[tuple[Operation, ...]] = (
    "predict", "transform_input", "transform_output", "route", "aggregate", "send_feedback", "health_status"
)  # fmt: skip
_BINDERS: Final[Mapping[str, Callable[[Callable[..., Any], str], Invoke]]] = {
    "predict": takes_rows,
    "transform_input": takes_rows,
    "transform_output": takes_rows,
    "route": takes_rows,
    "aggregate": takes_lists,
    "send_feedback": takes_feedback,
    "health_status": takes_little,
}
_HEALTHY: Final = "healthy"


class Component:
    """Calls one user object's methods with messages and makes messages of what they give.

    Args:
        user_object: the component.
        identity: the names of its node.
        metrics: takes what its ``metrics()`` and its answers report; nothing is kept when not given.

    Raises:
        GraphError: a method takes arguments that nothing gives it.
    """

    def __init__(
        self,
        user_object: Any,
        identity: UnitIdentity | None = None,
        metrics: CustomMetrics | None = None,
    ) -> None:
        self.user_object = user_object
        self.identity = identity if identity is not None else UnitIdentity()
        self.metrics = metrics if metrics is not None else CustomMetrics()
        self._invoke: dict[str, Invoke] = {}
        self._async: set[str] = set()
        self._low: dict[tuple[str, str], LowLevel] = {}
        for op in OPERATIONS:
            self._inspect(op)
        self._score = self._plain_method("score", takes_rows) if "transform_input" not in self._invoke else None
        self._tags = self._plain_method("tags", takes_little)
        self._own_metrics = self._plain_method("metrics", takes_little)
        self._class_names = self._names_source()

    def _inspect(self, op: str) -> None:
        method = getattr(self.user_object, op, None)
        if callable(method):
            self._invoke[op] = _BINDERS[op](method, op)
            if is_async(method):
                self._async.add(op)
        for transport in ("rest", "grpc"):
            found = low_level(self.user_object, op, transport)
            if found is not None:
                self._low[op, transport] = found
                if any(is_async(call.function) for call in found.calls):
                    self._async.add(op)

    def _plain_method(self, name: str, bind: Callable[[Callable[..., Any], str], Invoke]) -> Invoke | None:
        method = getattr(self.user_object, name, None)
        if not callable(method):
            return None
        if is_async(method):
            raise GraphError(f"{type(self.user_object).__name__}.{name}() cannot be async: only operations can")
        return bind(method, name)

    def _names_source(self) -> Callable[[Any], Any] | None:
        names = getattr(self.user_object, "class_names", None)
        if names is None:
            return None
        if callable(names):
            return self._plain_method("class_names", takes_little)
        return lambda values: names

    @property
    def is_async(self) -> bool:
        """Whether any of its operations is a coroutine function."""
        return bool(self._async)

    def has(self, op: Operation) -> bool:
        """Whether the object has a method of its own for an operation."""
        return op in self._invoke or (op, "rest") in self._low or (op, "grpc") in self._low

    # -- calling ----------------------------------------------------------------------------------------------------

    def call(self, op: Operation, source: Any, transport: Transport = "rest") -> Message | RawAnswer:
        """The answer to one request.

        Args:
            op: the operation.
            source: a `Message` (`Feedback`, a list of messages), or what an edge got: a JSON value on REST, the
                bytes of the protobuf message on gRPC.
            transport: where it came in.

        Raises:
            SeldonMicroserviceException: the request is malformed, or the component says so.
            Exception: whatever the component raises.
        """
        low = self._low.get((op, transport))
        if low is not None:
            for step in low.calls:
                try:
                    return self._noted(low.finish(step, step.function(*low.arguments(step, source))), op)
                except Exception as exc:
                    if not (step.may_decline and is_not_implemented(exc)):
                        raise
        request = read(op, source, transport)
        invoke, arguments = self._arguments(op, request)
        if invoke is None:
            return self._finish(op, request, arguments, transport)
        try:
            result = invoke(*arguments)
        except Exception as exc:
            if not is_not_implemented(exc):
                raise
            result = self._instead(op, request, exc)
        return self._finish(op, request, result, transport)

    async def acall(self, op: Operation, source: Any, transport: Transport = "rest") -> Message | RawAnswer:
        """The same as `call`, for a component with coroutine functions."""
        low = self._low.get((op, transport))
        if low is not None:
            for step in low.calls:
                try:
                    result = step.function(*low.arguments(step, source))
                    return self._noted(low.finish(step, await result if inspect.isawaitable(result) else result), op)
                except Exception as exc:
                    if not (step.may_decline and is_not_implemented(exc)):
                        raise
        request = read(op, source, transport)
        invoke, arguments = self._arguments(op, request)
        if invoke is None:
            return self._finish(op, request, arguments, transport)
        try:
            result = invoke(*arguments)
            if inspect.isawaitable(result):
                result = await result
        except Exception as exc:
            if not is_not_implemented(exc):
                raise
            result = self._instead(op, request, exc)
        return self._finish(op, request, result, transport)

    def _arguments(self, op: Operation, request: Any) -> tuple[Invoke | None, Any]:
        """The method for an operation and what it is called with; without a method, its result."""
        invoke = self._invoke.get(op)
        if op == "health_status":
            return (invoke, (None,)) if invoke is not None else (None, _HEALTHY)
        if op == "aggregate":
            if invoke is None:
                raise SeldonMicroserviceException("Aggregate not defined")
            return invoke, ([_values(m) for m in request], [m.names for m in request])
        if op == "send_feedback":
            return self._feedback_arguments(invoke, request)
        if invoke is None:
            if op == "transform_input" and self._score is not None:
                return self._scored, (request,)
            return None, self._instead(op, request, None)
        return invoke, (request.value, request.names, _meta_of(request))

    def _feedback_arguments(self, invoke: Invoke | None, feedback: Feedback) -> tuple[Invoke | None, Any]:
        if feedback.reward:
            self.metrics.sink.feedback(feedback.reward)
        if invoke is None:
            return None, []
        routing = feedback.response.meta.routing.get(self.identity.unit_id or "0")
        request, truth = feedback.request, feedback.truth
        return invoke, (_values(request), request.names, feedback.reward, _values(truth), routing)

    def _scored(self, request: Message) -> Any:
        """What an outlier detector of Seldon 0.x does: the input unchanged, its score as a tag."""
        assert self._score is not None
        score = self._score(request.value, request.names, _meta_of(request))
        return _Scored(request.value, np.asarray(score).tolist())

    def _instead(self, op: Operation, request: Any, exc: Exception | None) -> Any:
        """What stands for the result of a method that is missing, or says that it is not implemented."""
        if op == "predict" or op == "send_feedback":
            return []
        if op in ("transform_input", "transform_output"):
            return request.value
        if op == "health_status":
            return "not implemented - assuming healthy"
        if exc is not None:
            raise exc
        raise SeldonMicroserviceException(f"{op.capitalize()} not defined")

    # -- answering --------------------------------------------------------------------------------------------------

    def _finish(self, op: Operation, request: Any, result: Any, transport: Transport) -> Message:
        """The message of a result."""
        own_tags: Any = None
        own_metrics: Any = None
        if result.__class__ is _Scored:
            own_tags, result = {"outlierScore": result.score}, result.value
        elif is_response(result):
            own_tags, own_metrics, result = result.tags, result.metrics, result.data
        if op == "route":
            result = _routed(result)
        elif op == "send_feedback" and result is None:
            result = []  # most have nothing to say
        answered, meta = self._start(op, request)
        values = answered.value
        names = None if self._class_names is None else _implemented(self._class_names, values)
        tags = None if self._tags is None else _implemented(self._tags, values)
        metrics = None if self._own_metrics is None else _implemented(self._own_metrics, values)
        if tags:
            meta.tags.update(_mapping(tags, "tags()"))
        if own_tags:
            meta.tags.update(_mapping(own_tags, "the answer's tags"))
        if metrics:
            meta.metrics.extend(self.metrics.take(metrics, op))
        if own_metrics:
            meta.metrics.extend(self.metrics.take(own_metrics, op))
        return answer(result, answered, meta, names, transport)

    def _start(self, op: Operation, request: Any) -> tuple[Message, Meta]:
        """The message that is answered, and the meta that the answer begins with."""
        if op == "aggregate":
            return request[0], continued([m.meta for m in request], self.identity)
        if op == "health_status":
            return NO_REQUEST, continued((), self.identity)
        if op == "send_feedback":
            return request.request, continued((Meta(request.request.meta.puid),), self.identity)
        if op == "route":
            return request, continued((Meta(request.meta.puid),), self.identity)
        return request, continued((request.meta,), self.identity)

    def _noted(self, raw: RawAnswer, op: Operation) -> RawAnswer:
        """A low-level answer whose metrics are recorded, and taken out of it where callers are not shown any."""
        found = raw.metrics()
        if found:
            self.metrics.take_message(found, op)
            if not self.metrics.in_response:
                raw.drop_metrics()
        return raw

    # -- what it says of itself -------------------------------------------------------------------------------------

    def load(self) -> None:
        """Have the component load its model, where it has a ``load``; raises what that raises.

        ``load`` is looked up on the object: some components replace it there.
        """
        load = getattr(self.user_object, "load", None)
        if not callable(load):
            return
        try:
            load()
        except NotImplementedError:
            return
        except Exception as exc:
            if not is_not_implemented(exc):
                raise
        self._class_names = self._names_source()  # many components learn them from their model

    def init_metadata(self) -> Any:
        """What the component's ``init_metadata`` gives; an empty dict where it has none."""
        method = getattr(self.user_object, "init_metadata", None)
        if not callable(method):
            return {}
        try:
            return method()
        except Exception as exc:
            if is_not_implemented(exc):
                return {}
            raise


class _Scored:
    """The input of an outlier detector with its score."""

    __slots__ = ("score", "value")

    def __init__(self, value: Any, score: Any) -> None:
        self.value = value
        self.score = score


def is_response(result: Any) -> bool:
    """Whether a result is a ``SeldonResponse``, ours or that of the real package."""
    return type(result).__name__ == "SeldonResponse" and hasattr(result, "data") and hasattr(result, "tags")


def check_operation(op: str) -> Operation:
    """An operation's name, checked.

    Raises:
        GraphError: there is none of that name.
    """
    for known in OPERATIONS:
        if op == known:
            return known
    raise GraphError(f"{op!r} is no operation of a Seldon component; {closest(op, OPERATIONS)}")


def _implemented(method: Callable[[Any], Any], values: Any) -> Any:
    """What a method gives; ``None`` when it says that it is not implemented."""
    try:
        return method(values)
    except Exception as exc:
        if is_not_implemented(exc):
            return None
        raise


def _values(message: Message) -> Any:
    """What a component gets of a message; an empty array where it has no payload."""
    return np.array([]) if message.kind is None else message.value


def _meta_of(message: Message) -> dict[str, Any]:
    """The request's meta as it was sent; empty where none was."""
    source = message.source
    if source.__class__ is dict:
        meta = source.get("meta")
        return meta if meta.__class__ is dict else {}
    return message.meta.to_dict()


def _mapping(value: Any, place: str) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    raise SeldonMicroserviceException(f"{place} must be a dict, not {type(value).__name__}", 500)


def _routed(result: Any) -> Any:
    """A router's choice as the array that carries it.

    Raises:
        SeldonMicroserviceException: it is no whole number.
    """
    if isinstance(result, (int, np.integer)):
        return np.array([[int(result)]])
    raise SeldonMicroserviceException(f"Routing response must be int but got {type(result).__name__}")
