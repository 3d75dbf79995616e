"""`SeldonUnit`: the step that a node of a Seldon tree is: a leaf as a task, a node with children as a router."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from servegraph.errors import GraphError, ModelNotReadyError
from servegraph.graph.calls import make_call
from servegraph.graph.context import GraphContext
from servegraph.graph.events import Event
from servegraph.graph.plan import Route
from servegraph.graph.policies import StepPolicy
from servegraph.graph.resolve import is_async
from servegraph.graph.run import Run
from servegraph.serving.seldon.builtin_units import builtin_calls
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.message import Feedback, Message, Meta
from servegraph.serving.seldon.metadata import ModelMetadata
from servegraph.serving.seldon.node_code import (
    check_branches,
    code_of_node,
    is_v2_model,
    model_function,
    v2_model,
    with_branches,
)
from servegraph.serving.seldon.node_start import NodeStart
from servegraph.serving.seldon.parameters import typed_parameters
from servegraph.serving.seldon.remote_unit import RemoteUnit
from servegraph.serving.seldon.rest import feedback_from_rest, message_from_rest, message_to_rest
from servegraph.serving.seldon.step import ComponentStep
from servegraph.serving.seldon.tree import Node, NodeCall, Observe
from servegraph.serving.seldon.tree_branches import Visit, branch_for
from servegraph.serving.seldon.tree_errors import node_error
from servegraph.serving.seldon.tree_metrics import node_observer
from servegraph.serving.seldon.tree_trip import Trip
from servegraph.serving.seldon.unit_checks import unit_problems
from servegraph.serving.seldon.unit_code import component_function
from servegraph.serving.seldon.unit_options import UnitOptions
from servegraph.serving.v2 import V2ModelServer

Read = TypeVar("Read")

_SLOTS: Final[Mapping[str, str]] = {
    "predict": "down",
    "transform_input": "down",
    "transform_output": "up",
    "route": "route",
    "aggregate": "aggregate",
    "send_feedback": "send_feedback",
}
"""For each operation where in a node's way it has its place."""


class SeldonUnit:
    """A node of a Seldon tree as a step of any graph.

    In a tree it hands on messages. As a step of another graph it takes what arrives there: a message, Seldon's JSON,
    or a V2 body with ``inputs``, and answers in the same form.

    Args:
        context: the graph's context; supplied by the server.
        name: the step's name; supplied by the server.
        routes: the children in order; supplied by the server where the step is a router.
        component: the code: a class or object, or its name; see `find_component`.
        parameters: arguments of the class: a mapping, or Seldon's list of ``name``, ``value`` and ``type``.
        unit: the node's type and place; see `UnitOptions`.

    Raises:
        GraphError: the node has nothing to run, or its code is not what it should be.
    """

    keeps_time = True
    loaded = False
    """Whether its model is loaded."""

    def __init__(
        self,
        context: GraphContext | None = None,
        name: str | None = None,
        routes: Mapping[str, Route] | None = None,
        component: Any = None,
        parameters: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None = None,
        unit: Mapping[str, Any] | UnitOptions | None = None,
    ) -> None:
        self.context = context if context is not None else GraphContext()
        self.options = UnitOptions.from_dict(unit)
        self.name = self.options.name or name or "unit"
        self.routes: dict[str, Route] = dict(routes or {})
        self.step: ComponentStep | None = None
        """What calls the component, where it is one that runs here."""
        self.remote: RemoteUnit | None = None
        self.metadata: ModelMetadata | None = None
        """What it says of itself, once it is loaded; nothing is known here of one that runs elsewhere."""
        self.parallel = self.options.timeout_s is not None
        """Whether it wants an event loop."""
        self.model: V2ModelServer | None = None
        """The node's code where that is no component, but a model of servegraph."""
        self._start = NodeStart(self.name, self.options, parameters)
        with self._start.going_on():
            functions = self._functions(component, parameters)
        calls = {slot: self._call(op, function) for slot, (op, function) in functions.items()}
        self._health = self._health_call()
        mutates = self.step is not None
        children = [branch_for(route) for route in self.routes.values()]
        self.node = Node(self.name, self._image(), calls, children, mutates)
        self.node.logged = frozenset(self.options.logged)
        self.node.url = self.options.log_url

    @classmethod
    def argument_problems(cls, arguments: Mapping[str, Any], folder: str | None = None) -> Iterator[tuple[str, str]]:
        """Code and message of each problem in the arguments of a node; see `unit_problems`."""
        return unit_problems(arguments, folder)

    # -- building ---------------------------------------------------------------------------------------------------

    def _functions(self, code: Any, parameters: Any) -> dict[str, tuple[str, Callable[[Event], Any]]]:
        """For each place in the node's way the operation and its code."""
        options = self.options
        if options.hard_coded:
            built_in = builtin_calls(options.implementation, self.name, typed_parameters(parameters))
            return {slot: (slot, function) for slot, function in built_in.items()}
        operations = options.operations()
        if options.endpoint is not None:
            self.remote = RemoteUnit(self.name, options.endpoint, options.forward_headers)
            self.parallel = True
            return {_SLOTS[op]: (op, self.remote.function(op)) for op in operations}
        code = code if code is not None else options.packaged or None
        if code is None:
            if not operations:
                return {}
            raise GraphError(f"node {self.name!r} has no code: give component, an implementation or an endpoint")
        code, children = code_of_node(code, self.context), len(self.routes)
        if is_v2_model(code):
            self.model = v2_model(code, parameters, self.context, self.name, operations)
            return {"down": ("predict", model_function(self.model))}
        self.step = ComponentStep(
            self.context,
            self.name,
            code,
            with_branches(code, parameters, children),
            unit=options.identity(self.name),
            threads=options.threads,
            state_store=options.state_store,
        )
        check_branches(self.step.user_object, children)
        found = {}
        for op in operations:
            # A method that is added takes the place that another has: a model with TRANSFORM_INPUT is no longer asked
            # to predict.
            found[_SLOTS[op]] = (op, component_function(self.step, op))
        return found

    def _call(self, op: str, function: Callable[[Event], Any]) -> NodeCall:
        policy = StepPolicy(timeout_s=self.options.timeout_s)
        asynchronous = is_async(function)
        self.parallel = self.parallel or asynchronous
        call = make_call(self.name, function, asynchronous, policy, self.context.inline_limits)
        if self.options.hard_coded:
            call.guard.inline = call.guard.fixed = policy.plain  # it never waits
        return NodeCall(self.name, call, self._observe(op))

    def _health_call(self) -> NodeCall | None:
        """What asks the node's component how it is; ``None`` where there is none to ask."""
        if self.remote is not None:
            return self._call("health_status", self.remote.health)
        if self.step is not None:
            return self._call("health_status", component_function(self.step, "health_status"))
        return None

    def _observe(self, op: str) -> Observe | None:
        return node_observer(self.context.services, self.options.identity(self.name), op)

    def _image(self) -> str:
        """What the request's path says of the node."""
        options = self.options
        if options.image or options.implementation:
            return options.image or options.implementation
        component = self.step.user_object if self.step is not None else self.model
        return "" if component is None else type(component).__name__

    # -- life -------------------------------------------------------------------------------------------------------

    def post_init(self) -> None:
        """Have the component say what it is, and load its model; called by the server."""
        with self._start.going_on():
            if self.remote is None:
                user_object = self.step.user_object if self.step is not None else None
                options = self.options
                image = options.image if options.image != options.implementation else ""  # that is none of a container
                self.metadata = ModelMetadata.of(user_object, image, options.metadata)
            if self.step is not None:
                self.step.post_init()
            if self.model is not None:
                self.model.post_init()
        self.loaded = True

    def close(self) -> None:
        """Save the component's state once more."""
        if self.step is not None:
            self.step.close()
        if self.model is not None:
            self.model.close()
        self._start.close()

    async def describe(self) -> dict[str, Any]:
        """The metadata of the node: what its component, or the server that it runs on, says of itself.

        Raises:
            NodeError: it is not valid, or the other server does not tell it.
        """
        try:
            if self.remote is not None:
                found = await self.remote.metadata()
            elif self.metadata is not None:
                found = self.metadata.to_dict()
            else:
                raise ModelNotReadyError("it is not loaded yet", model=self.name)
        except Exception as exc:
            raise node_error(self.name, exc) from exc
        return {**found, "name": found.get("name") or self.name}

    async def health(self, event: Event) -> Any:
        """What the node's component, or the server that it runs on, says of its health, as a JSON value.

        Args:
            event: the request that asks for it; it is not changed.

        Raises:
            NodeError: it is not well, it is not loaded, or it cannot be reached.
        """
        if self.remote is None and not self.loaded:
            raise node_error(self.name, ModelNotReadyError("it is not loaded yet", model=self.name))
        if self._health is None:
            return message_to_rest(Message("strData", "healthy"))
        return await self._health.ask(None, Trip(event.fork(None), run_of(event), ""))

    async def aclose(self) -> None:
        """Close what belongs to the event loop."""
        if self.remote is not None:
            await self.remote.aclose()

    # -- serving ----------------------------------------------------------------------------------------------------

    async def do_event(self, event: Event) -> Event:
        """The answer of the node and of what is below it."""
        body = event.body
        if body.__class__ is Visit:
            visit: Visit = body
            content = visit.content
            learns = isinstance(content, Feedback)
            event.body = await (self.node.learn(content, visit.trip) if learns else self.node.run(content, visit.trip))  # type: ignore[arg-type]
            return event
        if is_feedback(body):
            return await self._learned(event, read_body(self.name, as_feedback, body))
        message = read_body(self.name, as_message, body)
        run = run_of(event)
        trip = Trip.start(event.fork(None), run, message.meta)
        reply = await self.node.run(message, trip)
        event.body = in_form_of(body, with_meta(reply, trip.finished()), self.name)
        return event

    async def _learned(self, event: Event, feedback: Feedback) -> Event:
        as_json = isinstance(event.body, dict)
        run = run_of(event)
        trip = Trip.of_feedback(event.fork(None), run, feedback)
        reply = await self.node.learn(feedback, trip)
        if reply is not None:
            event.body = message_to_rest(reply) if as_json else reply
        return event


def is_feedback(body: Any) -> bool:
    """Whether a step's input is feedback: itself, or Seldon's JSON of it."""
    return isinstance(body, Feedback) or (isinstance(body, dict) and "reward" in body)


def as_feedback(body: Any) -> Feedback:
    """The feedback that a step's input is.

    Raises:
        SeldonMicroserviceException: it is malformed (400).
    """
    return body if isinstance(body, Feedback) else feedback_from_rest(body)


def read_body(name: str, read: Callable[[Any], Read], body: Any) -> Read:
    """What a step reads of a body.

    Raises:
        NodeError: it is malformed, which is the caller's fault (400).
    """
    try:
        return read(body)
    except SeldonMicroserviceException as exc:
        raise node_error(name, exc) from exc


def run_of(event: Event) -> Run:
    """The engine's state of a request; one without an event loop where no engine runs it."""
    if event._run is None:
        event._run = Run(None, event.deadline)
    run: Run = event._run
    return run


def with_meta(message: Message, meta: Meta) -> Message:
    """The same payload with another meta."""
    return Message(message.kind, message.value, message.names, message.encoding, meta, message.status)


def as_message(body: Any) -> Message:
    """The message that a step's input is: itself, the rows of a V2 body, or what Seldon's JSON says.

    Raises:
        SeldonMicroserviceException: it is none of them (400).
    """
    if isinstance(body, Message):
        return body
    if isinstance(body, dict) and "inputs" in body and "data" not in body:
        return message_from_rest({"data": {"ndarray": body["inputs"]}})
    return message_from_rest(body)


def in_form_of(request: Any, reply: Message, name: str) -> Any:
    """An answer in the form of what it answers."""
    if isinstance(request, Message):
        return reply
    if isinstance(request, dict) and "inputs" in request and "data" not in request:
        value = reply.value
        outputs = value.tolist() if hasattr(value, "tolist") else value
        answer = {"model_name": name, "outputs": outputs if isinstance(outputs, list) else [outputs]}
        if request.get("id") is not None:
            answer["id"] = request["id"]
        return answer
    return message_to_rest(reply)
