"""Compiles a graph into a plan: resolves every name, builds every object, wires the units."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from servegraph.errors import GraphError, closest
from servegraph.graph.builtin import Merge
from servegraph.graph.calls import Call, InlineLimits, make_call
from servegraph.graph.context import GraphContext
from servegraph.graph.events import DROP, Event
from servegraph.graph.flow import DEFAULT_MAX_ITERATIONS, FlowGraph, Graph, RouterGraph
from servegraph.graph.paths import compile_input_path, compile_result_path
from servegraph.graph.plan import (
    BodyFunction,
    Plan,
    Route,
    Unit,
    async_body_function,
    body_function,
    chain,
)
from servegraph.graph.policies import DEFAULT_POLICY
from servegraph.graph.resolve import (
    DEFAULT_ROUTER,
    Namespace,
    accepts,
    instantiate,
    is_async,
    resolve,
    resolve_callable,
    takes_any,
)
from servegraph.graph.steps import ErrorStep, QueueStep, RouterStep, Step, is_local
from servegraph.graph.validate import check
from servegraph.graph.wiring import wire


@dataclass(slots=True)
class Bound:
    """A step's code, resolved: a function of the body, or one of the event."""

    step: Step
    function: Callable[[Any], Any]
    target: Any
    of_event: bool
    is_async: bool
    chooses: bool = False
    merge: Merge | None = None
    parallel: bool = False
    """Whether it does several things at once and so wants an event loop."""
    mutates: bool = True

    @property
    def chainable(self) -> bool:
        """Whether it may run in one call with its neighbours."""
        step = self.step
        return not (
            self.of_event
            or self.is_async
            or self.chooses
            or self.merge
            or step.on_error
            or step.policy != DEFAULT_POLICY
        )


class Compiler:
    """Compiles one graph for one server.

    Args:
        graph: the graph; it is read, not changed.
        context: given to the code that wants it.
        namespaces: where names are looked up before they are imported.
        limits: when synchronous code may run on the event loop.
    """

    def __init__(
        self,
        graph: Graph,
        context: GraphContext,
        namespaces: Sequence[Namespace] = (),
        limits: InlineLimits | None = None,
    ) -> None:
        self.graph = graph
        self.context = context
        self.namespaces = namespaces
        self.limits = limits or InlineLimits()
        context.inline_limits = self.limits
        self.objects: dict[str, Any] = {}
        self.parallel = False

    def compile(self) -> Plan:
        """The plan.

        Raises:
            GraphError: something in the graph cannot be resolved, built or wired.
        """
        check(self.graph, current_function=self.context.current_function)
        if isinstance(self.graph, RouterGraph):
            return self._router_plan(self.graph)
        return self._flow_plan(self.graph)

    # -- topologies -------------------------------------------------------------------------------------------------

    def _router_plan(self, graph: RouterGraph) -> Plan:
        bound = self.bind(graph)
        unit = self._unit(bound)
        unit.name = unit.call.name = graph.name or "router"
        unit.answers = True
        plan = Plan(starts=(unit,), units=(unit,), direct=unit, objects=self.objects)
        plan.plain = not self.parallel and graph.policy.plain
        return plan

    def _flow_plan(self, graph: FlowGraph) -> Plan:
        current = self.context.current_function
        bounds = {n: self.bind(s) for n, s in graph.steps.items() if is_local(s, current)}
        units: dict[str, Unit] = {}
        for names in _chains(graph, bounds):
            unit = self._chain_unit([bounds[n] for n in names])
            for name in names:
                units[name] = unit
        plan = wire(graph, units, {n: b.mutates for n, b in bounds.items()}, current)
        for unit in plan.units:
            if graph.allow_cyclic:
                step = graph.steps[unit.name]
                unit.max_iterations = step.max_iterations or graph.max_iterations or DEFAULT_MAX_ITERATIONS
        plan.objects = self.objects
        plan.plain = plan.plain and not self.parallel
        return plan

    # -- steps ------------------------------------------------------------------------------------------------------

    def _chain_unit(self, bounds: Sequence[Bound]) -> Unit:
        if len(bounds) == 1:
            return self._unit(bounds[0])
        pairs: list[tuple[str, BodyFunction]] = [(b.step.name, _mapped(b)) for b in bounds]
        name = bounds[-1].step.name
        call = make_call(name, chain(pairs), False, DEFAULT_POLICY, self.limits)
        call.chained = True
        return Unit(name, call)

    def _unit(self, bound: Bound) -> Unit:
        step = bound.step
        unit = Unit(step.name, self._call(bound), step.policy)
        unit.target = bound.target
        unit.chooses = bound.chooses
        unit.merge = bound.merge
        return unit

    def _call(self, bound: Bound) -> Call:
        with _named_after(bound.step):
            return self._make_call(bound)

    def _make_call(self, bound: Bound) -> Call:
        step = bound.step
        function: Callable[[Event], Any]
        if bound.of_event:
            function = bound.function
        elif bound.is_async:
            read, write = compile_input_path(step.input_path), compile_result_path(step.result_path)
            function = async_body_function(bound.function, read, write)
        else:
            function = chain([(step.name, _mapped(bound))])
        if bound.chooses:
            function = _choosing(function, bound)
        waits = bound.is_async and not isinstance(step, RouterStep) and not _keeps_time(bound.target)
        if bound.parallel or waits or not step.policy.plain:
            self.parallel = True
        call = make_call(step.name, function, bound.is_async, step.policy, self.limits)
        call.keeps_time = _keeps_time(bound.target)
        call.is_free = getattr(bound.target, "gate_is_free", None)
        return call

    def bind(self, step: Step) -> Bound:
        """A step's code, resolved and built."""
        with _named_after(step):
            return self._bind(step)

    def _bind(self, step: Step) -> Bound:
        if isinstance(step, QueueStep):
            return self._bind_queue(step)
        if isinstance(step, RouterStep):
            return self._bind_router(step)
        class_name = step.class_name
        if isinstance(class_name, str):
            class_name = resolve(class_name, self.namespaces)
            if not isinstance(class_name, type) and callable(class_name) and step.handler is None:
                return self._bind_function(step, class_name)
        if class_name is None:
            return self._bind_function(step, resolve_callable(step.handler, self.namespaces))
        target = self._object(step, class_name)
        self.objects[step.name] = target
        return self._bind_object(step, target)

    def _bind_function(self, step: Step, function: Callable[..., Any]) -> Bound:
        asynchronous = is_async(function)
        if accepts(function, "context"):
            function = functools.partial(function, context=self.context)
        mutates = step.mutates is not False
        return Bound(step, function, function, bool(step.full_event), asynchronous, mutates=mutates)

    def _object(self, step: Step, class_name: Any, **extra: Any) -> Any:
        """The object of a step: an instance of its class, a rebuilt copy, or the very object it was given."""
        arguments = dict(step.class_args)
        if not isinstance(class_name, type):
            if not hasattr(class_name, "to_dict"):
                return class_name
            arguments = {**(class_name.to_dict().get("class_args") or {}), **arguments}
            class_name = type(class_name)
        common = {
            "name": step.name,
            "context": self.context,
            "input_path": step.input_path,
            "result_path": step.result_path,
            "full_event": step.full_event,
            "graph_step": step,
            **extra,
        }
        return instantiate(class_name, arguments, common, self.namespaces, step.name)

    def _bind_object(self, step: Step, target: Any) -> Bound:
        method, of_event = _method(step, target)
        if of_event and not step.full_event:
            _check_paths(step, target)
        chooses = callable(getattr(target, "select_outlets", None))
        merge = target if isinstance(target, Merge) else None
        if method is None:
            method, of_event = _passes_on, False
        mutates = step.mutates if step.mutates is not None else getattr(target, "mutates", True)
        bound = Bound(step, method, target, of_event, is_async(method), chooses, merge, mutates=bool(mutates))
        bound.parallel = bool(getattr(target, "parallel", False))
        return bound

    def _bind_router(self, step: RouterStep) -> Bound:
        class_name = step.class_name or DEFAULT_ROUTER
        if isinstance(class_name, str):
            class_name = resolve(class_name, self.namespaces)
        routes = {key: self._route(step, key, route) for key, route in step.routes.items()}
        root = isinstance(step, RouterGraph)
        if isinstance(class_name, type) and not (accepts(class_name, "routes") or takes_any(class_name)):
            raise GraphError(f"{class_name.__name__} is no router: its constructor takes no 'routes'", step=step.name)
        target = self._object(step, class_name, routes=routes)
        self.objects[step.name or ("router" if root else "")] = target
        bound = self._bind_object(step, target)
        # A route that waits for nothing but its own routes has told already whether those wait.
        bound.parallel = bound.parallel or any(r.call.is_async and not r.call.keeps_time for r in routes.values())
        if bound.is_async and not _keeps_time(target):
            bound.parallel = True  # its own code may wait
        return bound

    def _route(self, router: RouterStep, key: str, step: Step) -> Route:
        if step.policy.on_error != "fail":
            raise GraphError(
                f"route {key!r}: on_error={step.policy.on_error!r} is for steps of a flow; "
                "what a failed route means is the router's to decide (on_failure of ParallelRun and VotingEnsemble)"
            )
        outer, self.objects = self.objects, {}  # a step of the flow may have the same name
        try:
            bound = self.bind(step)
            objects = self.objects
        finally:
            self.objects = outer
        # A router among the routes has routes of its own: each keeps its place in the path.
        self.objects.update((f"{router.name or 'router'}/{name}", target) for name, target in objects.items())
        model, _, version = key.partition(":")
        return Route(key, self._call(bound), bound.target, model, version)

    def _bind_queue(self, step: QueueStep) -> Bound:
        local = self.graph.followers(step.name) if isinstance(self.graph, FlowGraph) else []
        if local and self.context.current_function == "*":
            return Bound(step, _passes_on, None, False, False, mutates=False)
        opener = self.context.stream_opener
        if not step.path:
            raise GraphError(f"queue {step.name!r} has nothing after it here and no path to write to")
        if opener is None:
            raise GraphError(f"queue {step.name!r}: this runtime opens no streams", step=step.name)
        stream = opener(step.path, **step.stream_options)
        self.objects[step.name] = stream
        wrapped = step.full_event if step.full_event is not None else bool(local)
        return Bound(step, functools.partial(_push, stream, wrapped), stream, True, False, mutates=False)


def _chains(graph: FlowGraph, bounds: dict[str, Bound]) -> list[list[str]]:
    """The steps in groups that run as one call each; most groups are one step."""
    taken: set[str] = set()
    out: list[list[str]] = []
    heads = {n for n in bounds if not _joins_previous(graph, bounds, n)}
    for name in bounds:
        if name in taken or name not in heads:
            continue
        group = [name]
        while (follower := _only_follower(graph, bounds, group[-1])) and _joins_previous(graph, bounds, follower):
            group.append(follower)
        taken.update(group)
        out.append(group)
    return out


def _only_follower(graph: FlowGraph, bounds: dict[str, Bound], name: str) -> str | None:
    followers = graph.followers(name)
    return followers[0] if len(followers) == 1 and followers[0] in bounds else None


def _joins_previous(graph: FlowGraph, bounds: dict[str, Bound], name: str) -> bool:
    """Whether a step runs in one call with the one before it."""
    step = graph.steps[name]
    if graph.allow_cyclic or isinstance(step, ErrorStep) or len(step.after) != 1:
        return False
    before = step.after[0]
    if before not in bounds or _only_follower(graph, bounds, before) != name:
        return False
    previous = graph.steps[before]
    if previous.responder or isinstance(previous, ErrorStep):
        return False
    named_by_handler = any(isinstance(s, ErrorStep) and name in s.before for s in graph.steps.values())
    fallbacks = {s.policy.fallback for s in graph.steps.values()}
    if named_by_handler or name in fallbacks or before in fallbacks:
        return False
    return bounds[before].chainable and bounds[name].chainable


@contextlib.contextmanager
def _named_after(step: Step) -> Iterator[None]:
    """Have what is wrong with a step's code say which step it is."""
    try:
        yield
    except GraphError as exc:
        if exc.step is None or repr(exc.step) not in exc.message:
            exc.step = exc.step or step.name
            if exc.step:
                exc.message = f"step {exc.step!r}: {exc.message}"
        raise


def _mapped(bound: Bound) -> BodyFunction:
    step = bound.step
    with _named_after(step):
        read, write = compile_input_path(step.input_path), compile_result_path(step.result_path)
    return body_function(step.name, bound.function, read, write)


def _method(step: Step, target: Any) -> tuple[Callable[[Any], Any] | None, bool]:
    """The method that runs, and whether it gets the event: the handler, else ``do_event``, else ``do``."""
    if step.handler is not None:
        if not isinstance(step.handler, str):
            raise GraphError(
                f"handler must name a method of {type(target).__name__} when there is a class", step=step.name
            )
        method = getattr(target, step.handler, None)
        if not callable(method):
            methods = [m for m in dir(target) if not m.startswith("_") and callable(getattr(target, m, None))]
            raise GraphError(
                f"{type(target).__name__} has no method {step.handler!r}; {closest(step.handler, methods)}",
                step=step.name,
            )
        return method, bool(step.full_event)
    for name, gets_event in (("event_handler", True), ("do_event", True), ("do", bool(step.full_event))):
        method = getattr(target, name, None)
        if callable(method):
            return method, gets_event
    if isinstance(target, Merge) or callable(getattr(target, "select_outlets", None)):
        return None, False
    if callable(target):
        return target, bool(step.full_event)
    raise GraphError(
        f"{type(target).__name__} cannot be a step: it has no do_event, do or select_outlets method, "
        "no handler is named and it cannot be called",
        step=step.name,
    )


def _check_paths(step: Step, target: Any) -> None:
    """A class that takes whole events applies the paths itself; refuse paths that it would not see."""
    for option in ("input_path", "result_path"):
        value = getattr(step, option)
        if value is not None and getattr(target, option, None) != value:
            raise GraphError(
                f"{type(target).__name__} takes whole events and does not take {option}: "
                f"give it an {option} argument, or a 'do' method in place of 'do_event'",
                step=step.name,
            )


def _choosing(function: Callable[[Event], Any], bound: Bound) -> Callable[[Event], Any]:
    """The function, followed by the step's own choice of what comes next."""
    select = bound.target.select_outlets
    full_event = bool(bound.step.full_event)
    if is_async(function):

        async def choose_async(event: Event) -> Any:
            result = await function(event)
            if isinstance(result, Event):
                result._outlets = select(result if full_event else result.body)
            return result

        return choose_async

    def choose(event: Event) -> Any:
        result = function(event)
        if isinstance(result, Event):
            result._outlets = select(result if full_event else result.body)
        return result

    return choose


def _keeps_time(target: Any) -> bool:
    """Whether an object's code says that it waits for nothing that does not keep to the deadline itself.

    What a router's class declares does not hold for a subclass of somebody else's that has its own ``handle``.
    """
    for cls in type(target).__mro__:
        if "keeps_time" in vars(cls):
            return bool(vars(cls)["keeps_time"])
        if ("handle" in vars(cls) or "event_handler" in vars(cls)) and not cls.__module__.startswith("servegraph."):
            return False
    return False


def _passes_on(body: Any) -> Any:
    return body


def _push(stream: Any, wrapped: bool, event: Event) -> Any:
    """Write an event to a queue's stream; it ends here."""
    body = event.body
    if wrapped:
        body = {
            "full_event_wrapper": True,
            "body": event.body,
            "id": event.id,
            "key": event.key,
            "path": event.path,
            "content_type": event.content_type,
            "headers": dict(event.headers),
        }
    stream.push_data(body, key=event.key or None)
    return DROP
