"""A Seldon component as a step of any graph: of a flow, a route of a router, a node of a Seldon tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from servegraph.errors import (
    DeadlineError,
    GraphError,
    ModelLoadError,
    ModelNotReadyError,
    RequestError,
    StepError,
)
from servegraph.graph.calls import clock
from servegraph.graph.context import GraphContext
from servegraph.graph.events import Event
from servegraph.graph.paths import compile_input_path, compile_result_path
from servegraph.serving.seldon.answers import RawAnswer, Transport
from servegraph.serving.seldon.component import Component
from servegraph.serving.seldon.custom_metrics import CustomMetrics, MetricSink
from servegraph.serving.seldon.errors import SeldonMicroserviceException, chosen_failure
from servegraph.serving.seldon.exits import ends_nothing
from servegraph.serving.seldon.flask_context import Answer, FlaskContext, add_flask_hint
from servegraph.serving.seldon.gates import gate_of
from servegraph.serving.seldon.identity import UnitIdentity
from servegraph.serving.seldon.locate import component_of
from servegraph.serving.seldon.message import KINDS, Feedback, Message
from servegraph.serving.seldon.methods import OPERATIONS, Operation, check_operation
from servegraph.serving.seldon.parameters import typed_parameters
from servegraph.serving.seldon.persistence import Persistence
from servegraph.serving.seldon.rest import (
    feedback_answer_to_rest,
    message_from_rest,
    message_to_rest,
    meta_from_rest,
)
from servegraph.serving.seldon.state_store import state_key
from servegraph.serving.seldon.step_state import restored
from servegraph.serving.seldon.tree_errors import PassedThroughError, node_error

METRIC_SINKS: Final = "seldon.metric_sinks"
"""The service of a runtime that gives the sink of a node's metrics, by its identity."""
GRPC: Final = "grpc"
"""The kind of trigger whose events carry protobuf bytes."""


class ComponentStep:
    """Answers events with a component.

    What it takes as body decides what it gives: a `Message` for a `Message`; for the JSON object of Seldon's protocol
    another one; for ``{"inputs": …}`` of servegraph's own models ``{"outputs": …}``.

    Args:
        context: the graph's context; supplied by the server.
        name: the step's name; supplied by the server.
        component: the class, an object, or a name; see `find_component`.
        parameters: for the class: a mapping, or Seldon's list of ``name``, ``value`` and ``type``.
        operation: what events ask for that name no operation in their path.
        unit: names of the node in metrics and metas, as `UnitIdentity` or a mapping of its fields.
        metrics_in_response: whether callers are shown the component's metrics.
        threads: how many of its methods may run at the same time; 1 for components that know no locks, 0 for any
            number.
        folder: where its module is looked for; the working directory when not given.
        flask_config: fields of the configuration that ``flask.current_app`` shows.
        state_store: where the component's state is kept: ``redis://host:port/db``, ``file:///folder``, ``on``,
            ``off``; empty leaves it to the server.
        input_path: dotted path of the request in the event's body.
        result_path: dotted path in the body where the answer is written.

    Raises:
        GraphError: there is no such component, or it cannot be made or called.
    """

    def __init__(
        self,
        context: GraphContext | None = None,
        name: str | None = None,
        component: Any = None,
        parameters: Any = None,
        operation: str = "predict",
        unit: UnitIdentity | Mapping[str, str] | None = None,
        metrics_in_response: bool = True,
        threads: int = 1,
        folder: str | None = None,
        flask_config: Mapping[str, Any] | None = None,
        state_store: str | bool = "",
        input_path: str | None = None,
        result_path: str | None = None,
    ) -> None:
        if component is None:
            raise GraphError("a Seldon component is needed: component=<class, name or object>")
        self.context = context if context is not None else GraphContext()
        identity = unit if isinstance(unit, UnitIdentity) else UnitIdentity(**dict(unit or {}))
        self._parameters = typed_parameters(parameters)
        user_object = component_of(component, self._parameters, folder or self.context.workdir)
        self.name = name or type(user_object).__name__
        self.operation: Operation = check_operation(operation)
        make_sink = self.context.services.get(METRIC_SINKS)
        sink: MetricSink | None = None if make_sink is None else make_sink(identity)
        self._metrics = CustomMetrics(sink, in_response=metrics_in_response, component=self.name)
        self._flask_config = flask_config
        self.component = Component(user_object, identity, self._metrics)
        self.flask = FlaskContext.for_component(user_object, flask_config)
        self.ready = False
        self._state_store = state_store
        self._persistence: Persistence | None = None
        self.input_path = input_path
        self.result_path = result_path
        self._read = compile_input_path(input_path)
        self._write = compile_result_path(result_path)
        self._gate = gate_of(threads)
        self._awaits = self.component.is_async
        if self._awaits:
            self.answer = self._answer_async  # type: ignore[method-assign, assignment]
            self.do_event = self._do_event_async  # type: ignore[method-assign, assignment]

    def replace_component(self, user_object: Any) -> None:
        """Serve another object of the same class, such as one that was kept; only before the first event."""
        self.component = Component(user_object, self.component.identity, self._metrics)
        self.flask = FlaskContext.for_component(user_object, self._flask_config)

    @property
    def user_object(self) -> Any:
        """The component itself."""
        return self.component.user_object

    def gate_is_free(self) -> bool:
        """Whether a call would start at once, and not wait for others to end."""
        return self._gate.is_free()

    # -- life -------------------------------------------------------------------------------------------------------

    def post_init(self, mode: str = "sync", **_: Any) -> None:
        """Restore the component's state, and have it load its model; raises what its ``load`` raises."""
        context = self.context
        self._persistence = restored(self.user_object, self._state_store, context, self.state_key(), self._parameters)
        if self._persistence is not None and self._persistence.component is not self.user_object:
            self.replace_component(self._persistence.component)
        self.component.load()
        if self.component.is_async and not self._awaits:
            raise ModelLoadError(
                f"component {self.name!r}: load() has put a coroutine function in the place of a method; define the "
                "method with 'async def' in the class, so that it is known to be one when the server is built"
            )
        self.ready = True
        if self._persistence is not None:
            self._persistence.start()

    def state_key(self) -> str:
        """What the component's state is kept under; a step of no deployment has the names of its function."""
        unit = self.component.identity
        return state_key(unit.deployment_id or self.context.name, unit.predictor_id, unit.unit_id or self.name)

    def close(self) -> None:
        """Save the component's state once more."""
        if self._persistence is not None:
            self._persistence.stop()

    def handle_error(self, exc: Exception, event: Event) -> Answer | None:
        """What the component's own error handlers, those of its Flask Blueprint, answer to a failure.

        ``None`` where there are none, and on gRPC, which Flask never served.
        """
        if self.flask is None or event.trigger.kind == GRPC:
            return None
        return self.flask.handle_error(exc, event)

    # -- events -----------------------------------------------------------------------------------------------------

    def do_event(self, event: Event) -> Event:
        """The event with the component's answer as its body.

        Raises:
            NodeError: the component failed with a status of its own.
            Exception: what else it raised.
        """
        try:
            return self.answer(event)
        except Exception as exc:
            self._tell(exc)
            raise

    async def _do_event_async(self, event: Event) -> Event:
        try:
            return await self._answer_async(event)
        except Exception as exc:
            self._tell(exc)
            raise

    def _tell(self, exc: Exception) -> None:
        """Raise a failure with a status of its own in words that other steps know: they know nothing of Seldon's."""
        if chosen_failure(exc) is not None or isinstance(exc, PassedThroughError):
            raise node_error(self.name, exc) from exc

    def answer(self, event: Event) -> Event:
        """The event with the component's answer as its body; raises whatever the component raises."""
        outer = event.body
        try:
            if self._read is not None:
                event.body = self._read(outer)
            op, source, transport = self._asked(event)
            answer = self._call(event, op, source, transport)
            result = self._written(event, op, answer, transport)
        except BaseException as exc:
            event.body = outer  # what handles the failure sees the event as it came
            if not ends_nothing(exc):
                add_flask_hint(exc)
                raise
            raise StepError(f"{self.name} raised {exc!r}", step=self.name) from exc
        event.body = result if self._write is None else self._write(outer, result)
        return event

    async def _answer_async(self, event: Event) -> Event:
        outer = event.body
        try:
            if self._read is not None:
                event.body = self._read(outer)
            op, source, transport = self._asked(event)
            work = self.component.acall(op, source, transport)
            answer = await (work if self.flask is None else self.flask.run_async(event, _hand_over, work))
            result = self._written(event, op, answer, transport)
        except BaseException as exc:
            event.body = outer
            if isinstance(exc, GeneratorExit) or not ends_nothing(exc):  # the former may be the coroutine's own end
                add_flask_hint(exc)
                raise
            raise StepError(f"{self.name} raised {exc!r}", step=self.name) from exc
        event.body = result if self._write is None else self._write(outer, result)
        return event

    def _call(self, event: Event, op: Operation, source: Any, transport: Transport) -> Message | RawAnswer:
        with self._gate:
            if event.deadline is not None and clock() >= event.deadline:  # nobody waits for it any more
                raise DeadlineError(f"the request's time was up before {self.name!r} had its turn", step=self.name)
            if self.flask is None or transport == "grpc":
                return self.component.call(op, source, transport)
            return self.flask.run(event, self.component.call, op, source, transport)

    def _asked(self, event: Event) -> tuple[Operation, Any, Transport]:
        """The operation, what it is asked for, and how that came in."""
        if not self.ready:
            raise ModelNotReadyError(f"component {self.name!r} is not loaded yet", model=self.name)
        op = self.operation_of(event)
        body = event.body
        if event.trigger.kind == GRPC:
            return op, body, "grpc"
        if body.__class__ is dict and "inputs" in body and not any(kind in body for kind in KINDS):
            body = Message("data", self._inputs(body["inputs"]), _names_in(body), "ndarray", source=body)
        return op, body, "rest"

    def operation_of(self, event: Event) -> Operation:
        """What an event asks for: its path where that is an operation, else the step's own."""
        path = event.path.strip("/").replace("-", "_")
        if path in OPERATIONS:
            return check_operation(path)
        return self.operation

    @staticmethod
    def _inputs(values: Any) -> Any:
        if not isinstance(values, list):
            return values
        return message_from_rest({"data": {"ndarray": values}}).value

    def _written(self, event: Event, op: Operation, answer: Message | RawAnswer, transport: Transport) -> Any:
        """The answer in the form in which the request came."""
        body = event.body
        if transport == "grpc":
            return answer
        if isinstance(body, (Message, Feedback)) or (isinstance(body, list) and body and isinstance(body[0], Message)):
            return answer if isinstance(answer, Message) else message_of(answer)
        if isinstance(body, dict) and "inputs" in body and not any(kind in body for kind in KINDS):
            return self._outputs(event, answer)
        if isinstance(answer, RawAnswer):
            return answer.value
        return feedback_answer_to_rest(answer) if op == "send_feedback" else message_to_rest(answer)

    def _outputs(self, event: Event, answer: Message | RawAnswer) -> dict[str, Any]:
        message = answer if isinstance(answer, Message) else message_of(answer)
        out: dict[str, Any] = {"id": event.id, "model_name": self.name, "outputs": message.value}
        if message.meta.tags:
            out["tags"] = message.meta.tags
        return out


async def _hand_over(work: Any) -> Any:
    return await work


def message_of(answer: RawAnswer) -> Message:
    """The message in a low-level answer, which may be one without a payload.

    Raises:
        PassedThroughError: it is an error: its status is not 200.
        SeldonMicroserviceException: it is no message (500).
    """
    value = answer.value
    if answer.status != 200:
        raise PassedThroughError(answer.status, value)
    if hasattr(value, "SerializeToString"):
        from servegraph.serving.seldon import wire

        return wire.message_from_proto(value)
    try:
        if isinstance(value, dict) and not any(kind in value for kind in KINDS):
            message = Message(meta=meta_from_rest(value.get("meta", {})))
        else:
            message = message_from_rest(value)
        status = value.get("status")
        message.status = status if isinstance(status, dict) else None
        return message
    except SeldonMicroserviceException as exc:
        raise SeldonMicroserviceException(f"the component's answer is no message: {exc}", 500) from exc


def _names_in(body: Mapping[str, Any]) -> list[str]:
    names = body.get("names", [])
    if not isinstance(names, list):
        raise RequestError("names must be a list")
    return names
