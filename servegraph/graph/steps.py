"""The steps of a graph and how they are declared: task, router, queue and error step.

A step is data: what to run, with which arguments, after which steps. Nothing here imports or runs user code; the
compiler (``compile.py``) does. ``flow.py`` holds the graph that owns the steps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

from servegraph.errors import GraphError, NotFoundError, closest
from servegraph.graph.policies import DEFAULT_POLICY, StepPolicy, as_policy

if TYPE_CHECKING:
    from servegraph.graph.flow import FlowGraph

Names: TypeAlias = "str | Step | Iterable[Any] | None"
"""One name, several, or none; a step object counts as its name."""

REMOTE = "$remote"
QUEUE = "$queue"
PREVIOUS = "$prev"
MAX_ROUTES = 5000
_NAME = re.compile(r"[^/\s][^/]*\Z")


@dataclass(slots=True)
class StepOptions:
    """What a step may be given besides its code and arguments; one object wherever a step is made."""

    function: str | None = None
    """Child function that runs the step; ``None`` or ``"*"`` is wherever the graph runs."""
    full_event: bool | None = None
    """The code gets and returns the event instead of its body."""
    input_path: str | None = None
    """Dotted path of the part of the body that the code gets."""
    result_path: str | None = None
    """Dotted path in the body where the result is written; without one the result replaces the body."""
    policy: StepPolicy | Mapping[str, Any] | None = None
    """Timeout, retries, failure, concurrency: see `StepPolicy`."""
    mutates: bool | None = None
    """``False`` declares that the code never changes the body it is given: parallel branches then share it."""
    model_endpoint_creation_strategy: str | None = None
    """Kept for specs that carry it."""
    endpoint_type: int | None = None
    """Kept for specs that carry it."""
    shape: str | None = None
    """Graphviz shape of the step in a plot."""
    plot_label: str | None = None
    """What a plot says of the step below its name; its code where none is given."""
    max_iterations: int | None = None
    """How often one event may pass the step in a cyclic graph."""


OPTION_NAMES = frozenset(f.name for f in fields(StepOptions))


class Step:
    """A node of a graph. Made by ``to``, ``add_step``, ``add_route`` or ``error_handler``, not by hand.

    Args:
        class_name: the class to run, as a name, ``module:attr`` or the class; an object with ``to_dict``; or a
            function (then it is the handler).
        class_args: arguments of the class.
        handler: the function to run, or the name of the class's method.
        name: the step's name; unique in its graph.
        options: see `StepOptions`.
    """

    kind: ClassVar[str] = "task"

    def __init__(
        self,
        class_name: Any = None,
        class_args: Mapping[str, Any] | None = None,
        handler: Any = None,
        name: str = "",
        options: StepOptions | None = None,
        after: Iterable[str] = (),
    ) -> None:
        options = options or StepOptions()
        class_name, handler = _function_as_handler(class_name, handler)
        self.class_name = class_name
        self.class_args: dict[str, Any] = dict(class_args or {})
        self.handler = handler
        self.name = name
        self.function = options.function
        self.full_event = options.full_event
        self.input_path = options.input_path
        self.result_path = options.result_path
        self.policy: StepPolicy = as_policy(options.policy)
        self.mutates = options.mutates
        self.shape = options.shape
        self.plot_label = options.plot_label
        self.max_iterations = options.max_iterations
        self.endpoint_type = options.endpoint_type
        self.model_endpoint_creation_strategy = options.model_endpoint_creation_strategy
        self.after: list[str] = list(after)
        self.cycle_from: list[str] = []
        self.responder = False
        self.on_error: str | None = None
        self._graph: FlowGraph | None = None

    @property
    def graph(self) -> FlowGraph:
        """The graph that the step is in."""
        if self._graph is None:
            raise GraphError(f"step {self.name!r} is in no graph yet: add it with graph.to(...) or graph.add_step(...)")
        return self._graph

    def to(
        self,
        class_name: Any = None,
        name: str | None = None,
        handler: Any = None,
        *,
        cycle_to: Names = None,
        **arguments: Any,
    ) -> Step:
        """Add a step after this one and return it.

        Args:
            class_name: a class (name, ``module:attr`` or the class itself), an object, or a function. ``"*"`` and
                ``"*Class"`` are routers; ``"$queue"`` is a queue; ``"$remote"`` a remote call.
            name: the step's name; the class's or function's name where none is given.
            handler: a function, or the name of the class's method to call.
            cycle_to: earlier steps to which this one may lead back (needs ``allow_cyclic=True``).
            **arguments: any field of `StepOptions` (``input_path``, ``result_path``, ``full_event``, ``policy``,
                ``mutates``, ``function``, …); the rest are arguments of the class.
        """
        step = self.graph.add_step(class_name, name, handler, after=self.name, **arguments)
        if cycle_to:
            step.cycle_to(cycle_to)
        return step

    def after_step(self, *steps: Any, append: bool = True) -> Self:
        """Let this step run after those (names or steps); ``append=False`` forgets the earlier ones."""
        names = as_names(steps)
        self.after = [*self.after, *(n for n in names if n not in self.after)] if append else names
        return self

    def cycle_to(self, steps: Names) -> Self:
        """Let this step lead back to earlier ones; a choice decides when, ``max_iterations`` bounds how often."""
        if not self.graph.allow_cyclic:
            raise GraphError(
                f"step {self.name!r} cannot lead back to {as_names(steps)}: "
                "the graph needs set_topology('flow', allow_cyclic=True)"
            )
        for name in as_names(steps):
            target = self.graph[name]
            if self.name not in target.after:
                target.after.append(self.name)
            if self.name not in target.cycle_from:
                target.cycle_from.append(self.name)
        return self

    def respond(self) -> Self:
        """Mark this step's output as the answer to the caller. One step of a flow responds."""
        self.responder = True
        return self

    def error_handler(
        self,
        name: str | None = None,
        class_name: Any = None,
        handler: Any = None,
        before: Names = None,
        **arguments: Any,
    ) -> Self:
        """Give this step a step that takes over when it fails; returns this step.

        The handler sees ``event.error`` (the exception) and ``event.origin_state`` (this step's name) with
        ``full_event=True``. Its output goes on at the steps named by ``before``, or is the answer.
        """
        if self.on_error in self.graph.steps:
            raise GraphError(f"step {self.name!r} has the error handler {self.on_error!r} already")
        step = make_error_step(class_name, name, handler, arguments)
        step.base_step = self.name
        step.before = as_names(before)
        self.graph.own(step)
        self.on_error = step.name
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


class ErrorStep(Step):
    """A step that runs when another one fails."""

    kind: ClassVar[str] = "error_step"
    base_step: str | None = None
    before: list[str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.before = []


class QueueStep(Step):
    """A stream between steps; what follows it runs in a child function, or right away in the mock."""

    kind: ClassVar[str] = "queue"

    def __init__(
        self,
        name: str = "",
        path: str = "",
        shards: int | None = None,
        retention_in_hours: int | None = None,
        trigger_args: Mapping[str, Any] | None = None,
        options: StepOptions | None = None,
        after: Iterable[str] = (),
        stream_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(None, None, None, name, options, after)
        self.path = path
        self.shards = shards
        self.retention_in_hours = retention_in_hours
        self.trigger_args = dict(trigger_args or {})
        self.stream_options: dict[str, Any] = dict(stream_options or {})


class RouterStep(Step):
    """A step that hands each event to one or several of its routes."""

    kind: ClassVar[str] = "router"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.routes: dict[str, Step] = {}

    def add_route(
        self,
        key: str,
        route: Any = None,
        class_name: Any = None,
        handler: Any = None,
        **arguments: Any,
    ) -> Step:
        """Add a route, addressed by ``key`` (``model`` or ``model:version``), and return its step.

        Args:
            key: the route's key; a route of that key is replaced.
            route: a step or an object, in place of ``class_name``.
            class_name: the class (name, ``module:attr`` or class) or an object.
            handler: a function, or the name of the class's method.
            **arguments: fields of `StepOptions`; the rest are arguments of the class.
        """
        if not key or not isinstance(key, str) or not _NAME.match(key):
            raise GraphError(f"{key!r} is not a route key: give a name without '/', such as 'model' or 'model:v2'")
        if key not in self.routes and len(self.routes) >= MAX_ROUTES:
            raise GraphError(f"a router takes at most {MAX_ROUTES} routes")
        if isinstance(route, Step):
            _only_a_step(route, class_name or handler, arguments)
            step = route
        else:
            if (route is None) == (class_name is None and handler is None):
                raise GraphError(f"route {key!r}: give either route or class_name/handler")
            options, class_args = split_options(arguments)
            step = Step(class_name if route is None else route, class_args, handler, key, options)
        step.name = key
        self.routes[key] = step
        return step

    def clear_children(self, keys: Iterable[str] | None = None) -> None:
        """Remove the routes of these keys, or all."""
        for key in list(self.routes if keys is None else keys):
            if key not in self.routes:
                raise GraphError(f"router {self.name!r} has no route {key!r}; {closest(key, self.routes)}")
            del self.routes[key]

    def __getitem__(self, key: str) -> Step:
        try:
            return self.routes[key]
        except KeyError:
            raise NotFoundError(f"router {self.name!r} has no route {key!r}; {closest(key, self.routes)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.routes)

    def __contains__(self, key: object) -> bool:
        return key in self.routes


def make_step(class_name: Any, name: str | None, handler: Any, arguments: Mapping[str, Any]) -> Step:
    """The step that the arguments of ``to`` or ``add_step`` describe."""
    options, class_args = split_options(arguments)
    if isinstance(class_name, Step):
        _only_a_step(class_name, handler, arguments)
        if name:
            class_name.name = name
        return class_name
    step: Step
    if isinstance(class_name, str) and class_name in (">>", QUEUE):
        step = _queue(name, options, class_args)
    elif isinstance(class_name, str) and class_name.startswith("*"):
        step = RouterStep(class_name[1:] or None, class_args, handler, name or "", options)
    else:
        step = Step(class_name, class_args, handler, name or "", options)
    _named(step, name)
    return step


def make_error_step(class_name: Any, name: str | None, handler: Any, arguments: Mapping[str, Any]) -> ErrorStep:
    """The step that the arguments of ``error_handler`` describe."""
    options, class_args = split_options(arguments)
    step = ErrorStep(class_name, class_args, handler, name or "", options)
    _named(step, name)
    return step


def _named(step: Step, name: str | None) -> None:
    if step.class_name is None and step.handler is None and step.kind in ("task", "error_step"):
        raise GraphError("a step needs code: give class_name or handler")
    step.name = name or default_name(step)
    if not _NAME.match(step.name):
        raise GraphError(f"{step.name!r} is not a step name: it must not be empty or hold '/'")


def _only_a_step(step: Step, code: Any, arguments: Mapping[str, Any]) -> None:
    given = [*(["handler"] if code is not None else []), *arguments]
    if given:
        raise GraphError(f"{step!r} is made already: {given[0]!r} cannot be given beside it; set it on the step")


def _queue(name: str | None, options: StepOptions, arguments: dict[str, Any]) -> QueueStep:
    if "path" not in arguments:
        raise GraphError("a queue needs path=<stream URI> (it may be empty)")
    known = {k: arguments.pop(k) for k in ("path", "shards", "retention_in_hours", "trigger_args") if k in arguments}
    if not name:
        raise GraphError("a queue needs a name")
    return QueueStep(name, options=options, stream_options=arguments, **known)


def split_options(arguments: Mapping[str, Any]) -> tuple[StepOptions, dict[str, Any]]:
    """The options of a step, and the arguments that are left for its class."""
    mine = {("shape" if k == "graph_shape" else k): v for k, v in arguments.items()}
    options = StepOptions(**{k: mine.pop(k) for k in list(mine) if k in OPTION_NAMES})
    return options, mine


def default_name(step: Step) -> str:
    """The last part of the class's or the function's name."""
    source = step.handler if step.class_name is None else step.class_name
    if source is None and isinstance(step, RouterStep):
        return "router"
    if not isinstance(source, str):
        if not isinstance(source, type) and not hasattr(source, "__qualname__"):
            source = type(source)
        source = source.__qualname__
    if source.startswith("("):
        return "expression"
    return re.split(r"[.:]", source)[-1].strip("<>$") or "step"


def is_local(step: Step, current: str) -> bool:
    """Whether a step runs in the function named ``current``.

    ``"*"`` runs every step; the parent (``""``) runs those that name no function; a child runs its own.
    """
    return current == "*" or step.function == "*" or (step.function or "") == current


def as_names(steps: Names) -> list[str]:
    """A list of step names from one name or step, several, or none."""
    if steps is None:
        return []
    if isinstance(steps, (str, Step)):
        steps = [steps]
    names: list[str] = []
    for item in steps:
        if isinstance(item, (list, tuple)):
            names.extend(as_names(item))
        elif item is not None:
            names.append(item if isinstance(item, str) else item.name)
    return names


def _function_as_handler(class_name: Any, handler: Any) -> tuple[Any, Any]:
    """A function or lambda given in the place of a class is the handler."""
    is_function = callable(class_name) and not isinstance(class_name, type) and hasattr(class_name, "__qualname__")
    if is_function and handler is None:
        return None, class_name
    return class_name, handler


Handler = Callable[..., Any]
__all__ = [
    "DEFAULT_POLICY",
    "ErrorStep",
    "QueueStep",
    "RouterStep",
    "Step",
    "StepOptions",
    "as_names",
    "is_local",
    "make_step",
]
