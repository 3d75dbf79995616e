"""The graphs: `FlowGraph`, a directed graph of steps, and the router graph, one router at the root."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self

from servegraph.errors import GraphError, closest
from servegraph.graph.steps import (
    PREVIOUS,
    ErrorStep,
    Names,
    RouterStep,
    Step,
    as_names,
    default_name,
    make_error_step,
    make_step,
)

DEFAULT_MAX_ITERATIONS = 100


class FlowGraph:
    """A flow: steps, and which of them run after which.

    Args:
        engine: ``async`` (requests pass through coroutines and parallel branches) or ``sync`` (the answer is the
            output of the last step where no step is marked with ``respond()``).
        allow_cyclic: whether steps may lead back (``cycle_to``).
        max_iterations: how often one event may pass a step of a cycle.
        fail_fast: a failing branch cancels the others instead of letting them end.
    """

    kind: ClassVar[str] = "flow"

    def __init__(
        self,
        engine: str = "async",
        *,
        allow_cyclic: bool = False,
        max_iterations: int | None = None,
        fail_fast: bool = False,
    ) -> None:
        if engine not in ("sync", "async"):
            raise GraphError(f"engine is {engine!r}; valid: sync, async")
        if max_iterations is not None and max_iterations < 1:
            raise GraphError(f"max_iterations must be at least 1, not {max_iterations!r}")
        self.engine = engine
        self.allow_cyclic = allow_cyclic
        self.max_iterations = max_iterations
        self.fail_fast = fail_fast
        self.on_error: str | None = None
        self.steps: dict[str, Step] = {}
        self._last: str | None = None
        self.extra: dict[str, Any] = {}  # keys of a loaded spec that mean nothing here but are kept

    # -- building ---------------------------------------------------------------------------------------------------

    def to(self, class_name: Any = None, name: str | None = None, handler: Any = None, **arguments: Any) -> Step:
        """Add a start step (it gets what the caller sends) and return it; arguments as in `Step.to`."""
        return self.add_step(class_name, name, handler, **arguments)

    def add_step(
        self,
        class_name: Any = None,
        name: str | None = None,
        handler: Any = None,
        *,
        after: Names = None,
        before: Names = None,
        cycle_to: Names = None,
        **arguments: Any,
    ) -> Step:
        """Add a step and return it.

        Args:
            class_name: what to run; see `Step.to`.
            name: the step's name; it must not be taken.
            handler: a function, or the name of the class's method to call.
            after: the step or steps that lead to it; ``"$prev"`` is the one added last. None makes a start step.
            before: a step or steps in front of which it is put: it takes over what led to them.
            cycle_to: earlier steps to which this one may lead back.
            **arguments: fields of `StepOptions`; the rest are arguments of the class.

        Raises:
            GraphError: the name is taken, or ``after`` or ``before`` names no step.
        """
        step = make_step(class_name, name, handler, arguments)
        self.insert_step(step.name, step, after=after, before=before)
        if cycle_to:
            step.cycle_to(cycle_to)
        return step

    def insert_step(self, key: str, step: Step, after: Names = None, before: Names = None) -> Step:
        """Put a step into the graph under a name, after and before others, and return it."""
        step.name = key
        after_names = [self._known(self._previous(n), "after", key) for n in as_names(after)]
        before_names = [self._known(n, "before", key) for n in as_names(before)]
        self.own(step)
        step.after = [*step.after, *(n for n in after_names if n not in step.after)]
        for name in before_names:
            target = self.steps[name]
            if not after_names:
                step.after = [*step.after, *(n for n in target.after if n not in step.after and n != key)]
                target.after = [key]
            else:
                target.after = [n for n in target.after if n not in after_names]
                target.after.append(key)
        self._last = key
        return step

    def own(self, step: Step) -> None:
        """Register a step under its name.

        Raises:
            GraphError: another step has that name.
        """
        if step.name in self.steps:
            raise GraphError(f"there is a step named {step.name!r} already: give this one another name=")
        step._graph = self
        self.steps[step.name] = step

    def set_flow(self, steps: Iterable[Any], force: bool = False) -> Self:
        """Make the graph a line of these steps, in order; each is a step, a spec dictionary, or code.

        Raises:
            GraphError: the graph has steps and ``force`` is not set.
        """
        if self.steps and not force:
            raise GraphError("the graph has steps already: set_flow(..., force=True) replaces them")
        self.steps.clear()
        self.on_error = self._last = None
        for item in steps:
            after = self._last
            if isinstance(item, Mapping):
                from servegraph.graph.spec import step_from_dict

                step = step_from_dict(str(item.get("name") or ""), item)
                self.insert_step(step.name or default_name(step), step, after=after)
            else:
                self.add_step(item, after=after)
        return self

    def error_handler(
        self, name: str | None = None, class_name: Any = None, handler: Any = None, **arguments: Any
    ) -> Self:
        """Give the graph a step that takes over when any step without a handler of its own fails.

        Its output is the answer; the graph ends there.
        """
        if "before" in arguments:
            raise GraphError("a handler for the whole graph ends it: 'before' is for a step's own error_handler")
        if self.on_error in self.steps:
            raise GraphError(f"the graph has the error handler {self.on_error!r} already")
        step = make_error_step(class_name, name, handler, arguments)
        self.own(step)
        self.on_error = step.name
        return self

    def clear_children(self, keys: Iterable[str] | None = None) -> None:
        """Remove the steps of these names, or all of them."""
        for key in list(self.steps if keys is None else keys):
            self._known(key, "clear_children", key)
            del self.steps[key]
        if self._last not in self.steps:
            self._last = None
        holders: list[FlowGraph | Step] = [self, *self.steps.values()]
        for holder in holders:
            if holder.on_error not in self.steps:
                holder.on_error = None

    def _previous(self, name: str) -> str:
        if name != PREVIOUS:
            return name
        if self._last is None:
            raise GraphError("after='$prev' needs a step that was added before")
        return self._last

    def _known(self, name: str, where: str, key: str) -> str:
        if name not in self.steps:
            raise GraphError(f"step {key!r}: {where} names {name!r}, which is no step; {closest(name, self.steps)}")
        return name

    # -- reading ----------------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Any:
        return self.path_to_step(name)

    def __contains__(self, name: object) -> bool:
        return name in self.steps

    def __iter__(self) -> Iterator[str]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def path_to_step(self, path: str) -> Any:
        """The step named ``a``, or the route ``b`` of router ``a`` for ``a/b``, and so on where routes are routers.

        Raises:
            GraphError: there is none; the message lists those there are.
        """
        name, *rest = path.split("/")
        if name not in self.steps:
            raise GraphError(f"the graph has no step {name!r}; {closest(name, self.steps)}")
        step = self.steps[name]
        for key in filter(None, rest):
            if not isinstance(step, RouterStep):
                raise GraphError(f"step {step.name!r} is no router and has no {key!r}")
            step = step[key]
        return step

    def followers(self, name: str) -> list[str]:
        """The names of the steps that run after this one, in the order they were added."""
        return [n for n, step in self.steps.items() if name in step.after]

    def starts(self) -> list[str]:
        """The names of the steps that get what the caller sends."""
        return [
            n
            for n, s in self.steps.items()
            if not isinstance(s, ErrorStep)
            and not (set(s.after) - set(s.cycle_from))
            and not self._continues_handler(n)
        ]

    def _continues_handler(self, name: str) -> bool:
        """Whether a step is reached only from an error handler."""
        return any(isinstance(s, ErrorStep) and name in s.before for s in self.steps.values())

    def add_route(self, *_: Any, **__: Any) -> Step:
        """Flows have no routes: put a router into the flow and add routes to it."""
        raise GraphError("a flow has no routes: add a router step (graph.to('*', name='router')) and use its add_route")

    def to_dict(self, strip: bool = False) -> dict[str, Any]:
        """The graph as data, in a stable order; see ``graph/spec.py``."""
        from servegraph.graph.spec import graph_to_dict

        spec: dict[str, Any] = graph_to_dict(self, strip=strip)
        return spec

    def plot(self, filename: str | None = None, **options: Any) -> Any:
        """A drawing of the graph; see ``servegraph.graph.plot``."""
        from servegraph.graph.plot import plot

        return plot(self, filename, **options)

    def __repr__(self) -> str:
        return f"<FlowGraph {self.engine} of {len(self.steps)} steps>"


class RouterGraph(RouterStep):
    """The router topology: one router at the root, with routes."""

    engine = "sync"

    def to_dict(self, strip: bool = False) -> dict[str, Any]:
        """The graph as data, in a stable order; see ``graph/spec.py``."""
        from servegraph.graph.spec import graph_to_dict

        spec: dict[str, Any] = graph_to_dict(self, strip=strip)
        return spec

    def plot(self, filename: str | None = None, **options: Any) -> Any:
        """A drawing of the graph; see ``servegraph.graph.plot``."""
        from servegraph.graph.plot import plot

        return plot(self, filename, **options)


Graph = FlowGraph | RouterGraph
