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
from typing import Any, Final

import numpy as np

from servegraph.serving.seldon.answers import NO_REQUEST, RawAnswer, Transport, answer, continued, has_columns
from servegraph.serving.seldon.awaiting import waited_for
from servegraph.serving.seldon.custom_metrics import CustomMetrics
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.identity import UnitIdentity
from servegraph.serving.seldon.message import Feedback, Message, Meta
from servegraph.serving.seldon.methods import Methods, Operation
from servegraph.serving.seldon.raw import is_not_implemented, read
from servegraph.serving.seldon.results import (
    Ask,
    Scored,
    aimplemented,
    implemented,
    is_response,
    mapping,
    routed,
    scored_later,
    unwrapped,
)
from servegraph.serving.seldon.signatures import Invoke

logger = logging.getLogger("servegraph.seldon")

_HEALTHY: Final = "healthy"


class Component:
    """Calls one user object's methods with messages and makes messages of what they give.

    Args:
        user_object: the component.
        identity: the names of its node.
        metrics: takes what its ``metrics()`` and its answers report; nothing is kept when not given.

    A method that cannot be called, because it takes arguments that nothing gives it, is told in the log. Only
    requests that need it fail: many components have such a method that no request of theirs ever calls.
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
        self._look()

    def _look(self) -> None:
        self._methods = Methods(self.user_object)
        self._invoke = self._methods.operations
        self._low = self._methods.low_level

    @property
    def is_async(self) -> bool:
        """Whether any of the methods that requests call is a coroutine function."""
        return bool(self._methods.coroutines)

    def has(self, op: Operation) -> bool:
        """Whether the object has a method of its own for an operation."""
        return self._methods.has(op)

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
        request: Any = None
        low = self._low.get((op, transport))
        if low is not None:
            if op == "send_feedback":
                request = self._read(op, source, transport)
            for step in low.calls:
                try:
                    return self._noted(low.finish(step, step.function(*low.arguments(step, source))), op)
                except Exception as exc:
                    if not (step.may_decline and is_not_implemented(exc)):
                        raise
        if request is None:
            request = self._read(op, source, transport)
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
        request: Any = None
        low = self._low.get((op, transport))
        if low is not None:
            if op == "send_feedback":
                request = self._read(op, source, transport)
            for step in low.calls:
                try:
                    result = step.function(*low.arguments(step, source))
                    return self._noted(low.finish(step, await result if inspect.isawaitable(result) else result), op)
                except Exception as exc:
                    if not (step.may_decline and is_not_implemented(exc)):
                        raise
        if request is None:
            request = self._read(op, source, transport)
        invoke, arguments = self._arguments(op, request)
        if invoke is None:
            return await self._afinish(op, request, arguments, transport)
        try:
            result = invoke(*arguments)
            if inspect.isawaitable(result):
                result = await result
        except Exception as exc:
            if not is_not_implemented(exc):
                raise
            result = self._instead(op, request, exc)
        return await self._afinish(op, request, result, transport)

    def _read(self, op: Operation, source: Any, transport: Transport) -> Any:
        """What a request holds; the reward of a feedback is counted, whichever method gets it."""
        request = read(op, source, transport)
        if op == "send_feedback" and request.reward:
            self.metrics.sink.feedback(request.reward)
        return request

    def _arguments(self, op: Operation, request: Any) -> tuple[Invoke | None, Any]:
        """The method for an operation and what it is called with; without a method, its result."""
        invoke = self._invoke.get(op)
        if op == "health_status":
            return (invoke, (_values(NO_REQUEST),)) if invoke is not None else (None, _HEALTHY)
        if op == "aggregate":
            if invoke is None:
                raise SeldonMicroserviceException("Aggregate not defined")
            return invoke, ([_values(m) for m in request], [m.names for m in request])
        if op == "send_feedback":
            return self._feedback_arguments(invoke, request)
        if invoke is None:
            if op == "transform_input" and self._methods.score is not None:
                return self._scored, (request,)
            return None, self._instead(op, request, None)
        return invoke, (request.value, request.names, _meta_of(request))

    def _feedback_arguments(self, invoke: Invoke | None, feedback: Feedback) -> tuple[Invoke | None, Any]:
        if invoke is None:
            return None, []
        routing = feedback.response.meta.routing.get(self.identity.unit_id or "0")
        request, truth = feedback.request, feedback.truth
        return invoke, (_values(request), request.names, feedback.reward, _values(truth), routing)

    def _scored(self, request: Message) -> Any:
        """What an outlier detector of Seldon 0.x does: the input unchanged, its score as a tag."""
        assert self._methods.score is not None
        score = self._methods.score(request.value, request.names, _meta_of(request))
        return scored_later(request.value, score) if inspect.isawaitable(score) else Scored(request.value, score)

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

    def _finish(
        self, op: Operation, request: Any, result: Any, transport: Transport, ask: Ask = implemented
    ) -> Message:
        """The message of a result; ``ask`` has the component's other methods say what goes into it."""
        own_tags: Any = None
        own_metrics: Any = None
        if result.__class__ is Scored:
            own_tags, result = {"outlierScore": result.score}, result.value
        elif is_response(result):
            own_tags, own_metrics, result = result.tags, result.metrics, result.data
        if op == "route":
            result = routed(result)
        elif op == "send_feedback" and result is None:
            result = []  # most have nothing to say
        answered, meta = self._start(op, request)
        values = _values(answered) if op == "send_feedback" else answered.value
        methods = self._methods
        names = ask(methods.class_names, values) if has_columns(result) else None
        tags = None if methods.tags is None else ask(methods.tags, values)
        metrics = None if methods.metrics is None else ask(methods.metrics, values)
        if tags:
            meta.tags.update(mapping(tags, "tags()"))
        if own_tags:
            meta.tags.update(mapping(own_tags, "the answer's tags"))
        if metrics:
            meta.metrics.extend(self.metrics.take(metrics, op))
        if own_metrics:
            meta.metrics.extend(self.metrics.take(own_metrics, op))
        return answer(result, answered, meta, names, transport)

    async def _afinish(self, op: Operation, request: Any, result: Any, transport: Transport) -> Message:
        """The same, once the other methods have said what they have to say."""
        answered, _ = self._start(op, request)
        values = _values(answered) if op == "send_feedback" else answered.value
        methods = self._methods
        named = op == "route" or has_columns(unwrapped(result))
        said: dict[Invoke, Any] = {}
        for method in (methods.class_names if named else None, methods.tags, methods.metrics):
            if method is not None:
                said[method] = await aimplemented(method, values)
        return self._finish(op, request, result, transport, lambda method, _: said[method])

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
        """Have the component load its model, where it has a ``load``.

        ``load`` is looked up on the object: some components replace it there. What it puts in the place of other
        methods counts too.

        A coroutine function is waited for.

        Raises:
            Exception: whatever it raises.
        """
        load = getattr(self.user_object, "load", None)
        if callable(load):
            try:
                waited_for(load())
            except NotImplementedError:
                pass
            except Exception as exc:
                if not is_not_implemented(exc):
                    raise
            self._look()
        for problem in self._methods.problems:
            logger.error("%s; requests that need it fail", problem)


def _values(message: Message) -> Any:
    """What a component gets of a message; an empty array where it has no payload."""
    return np.array([]) if message.kind is None else message.value


def _meta_of(message: Message) -> dict[str, Any]:
    """The request's meta as it was sent; empty where none was."""
    source = message.source
    if source.__class__ is dict:
        meta = source.get("meta")
        return meta if meta.__class__ is dict else {}
    return message.meta.copy().to_dict()
