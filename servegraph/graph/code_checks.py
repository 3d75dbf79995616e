"""What can be wrong in the code that a graph names: classes, arguments, methods, expressions, paths."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from servegraph.errors import GraphError, SpecError, closest, summary
from servegraph.graph.paths import compile_input_path, compile_result_path
from servegraph.graph.problems import PLAIN, UNKNOWN, Problem, Traits, traits_of_target
from servegraph.graph.resolve import (
    DEFAULT_ROUTER,
    Namespace,
    accepts,
    parameters,
    resolve,
    resolve_callable,
    takes_any,
)
from servegraph.graph.spec_values import code_of, plain_value
from servegraph.graph.steps import QueueStep, RouterStep, Step

# What the compiler passes to a constructor that takes it.
_COMMON = frozenset({"name", "context", "input_path", "result_path", "full_event", "graph_step"})
_METHODS = ("event_handler", "do_event", "do", "select_outlets")
_NOTHING = object()
ARGUMENT_PROBLEMS = "argument_problems"
"""The classmethod by which a class checks its own arguments: it takes them and the folder that relative names start
from, and gives the code and the message of each problem."""


class CodeChecks:
    """Resolves the code of steps, without making objects, and tells what is wrong with it.

    Args:
        namespaces: where names are looked up before they are imported.
        exportable: also tell what cannot be written into a spec.
        folder: where relative names in arguments start from.
    """

    def __init__(self, namespaces: Sequence[Namespace], exportable: bool, folder: str | None = None) -> None:
        self.namespaces = namespaces
        self.exportable = exportable
        self.folder = folder
        self._targets: dict[int, Any] = {}
        self._failures: dict[int, str] = {}

    def problems(self, step: Step, where: str) -> Iterator[Problem]:
        """The problems of one step; ``where`` names it."""
        for code, message in self._all(step):
            yield Problem("error", where or None, code, message)

    def traits(self, step: Step) -> Traits:
        """What the step's code does to the way of an event; unknown where it cannot be resolved."""
        if isinstance(step, QueueStep):
            return PLAIN
        target = self._target(step)
        return UNKNOWN if target is _NOTHING else traits_of_target(target)

    def _all(self, step: Step) -> Iterator[tuple[str, str]]:
        yield from _paths(step)
        if not isinstance(step, QueueStep):
            target = self._target(step)
            if target is _NOTHING:
                yield "unknown-code", self._failures[id(step)]
            else:
                yield from self._code(step, target)
        if self.exportable:
            yield from _export(step)

    def _target(self, step: Step) -> Any:
        """The class, object or function of a step; `_NOTHING`, with the failure kept, where there is none."""
        key = id(step)
        if key not in self._targets:
            try:
                self._targets[key] = self._resolved(step)
            except GraphError as exc:
                self._targets[key] = _NOTHING
                self._failures[key] = exc.message
            except Exception as exc:  # noqa: BLE001 - whatever the user's module raises when it is imported
                self._targets[key] = _NOTHING
                name = step.handler if step.class_name is None else step.class_name
                self._failures[key] = f"importing {name!r} failed: {summary(exc)}"
        return self._targets[key]

    def _resolved(self, step: Step) -> Any:
        class_name = step.class_name
        if class_name is None and isinstance(step, RouterStep):
            class_name = DEFAULT_ROUTER
        if class_name is None:
            if step.handler is None:
                raise GraphError("a step needs code: give class_name or handler")
            return resolve_callable(step.handler, self.namespaces)
        target = resolve(class_name, self.namespaces) if isinstance(class_name, str) else class_name
        if isinstance(class_name, str) and not callable(target):
            raise GraphError(f"{class_name!r} is {type(target).__name__}, neither a class nor a function")
        return target

    def _code(self, step: Step, target: Any) -> Iterator[tuple[str, str]]:
        if step.class_name is None and not isinstance(step, RouterStep):
            return  # a function; what it takes is its own affair
        arguments: Mapping[str, Any] = step.class_args
        if isinstance(target, type):
            yield from self._arguments(step, target, arguments)
        elif hasattr(target, "to_dict"):
            described = target.to_dict()
            arguments = {**((described.get("class_args") if isinstance(described, Mapping) else None) or {})}
            target = type(target)
            yield from self._arguments(step, target, {**arguments, **step.class_args})
        is_router = not isinstance(target, type) or accepts(target, "routes") or takes_any(target)
        if isinstance(step, RouterStep) and not is_router:
            yield "no-router", f"{target.__name__} is no router: its constructor takes no 'routes'"
        yield from _method(step, target)

    def _arguments(self, step: Step, target: type, arguments: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        given: set[str] = set()
        for key, value in arguments.items():
            named = key.startswith("_") and isinstance(value, str)
            given.add(key[1:] if named else key)
            if named:
                yield from self._callable(key, value)
        known = parameters(target)
        if known and not takes_any(target):
            for key in sorted(given - set(known)):
                yield "unknown-argument", f"{target.__name__} takes no argument {key!r}; {closest(key, known)}"
        passed = given | _COMMON | ({"routes"} if isinstance(step, RouterStep) else set())
        missing = [n for n, p in known.items() if _is_required(p) and n not in passed]
        if missing:
            yield "missing-argument", f"{target.__name__} needs the argument {', '.join(map(repr, missing))}"
        own = getattr(target, ARGUMENT_PROBLEMS, None)
        if own is not None:
            yield from own(arguments, self.folder)

    def _callable(self, key: str, value: str) -> Iterator[tuple[str, str]]:
        try:
            resolve_callable(value, self.namespaces)
        except GraphError as exc:
            yield "unknown-code", f"argument {key!r}: {exc.message}"
        except Exception as exc:  # noqa: BLE001 - as above
            yield "unknown-code", f"argument {key!r}: importing {value!r} failed: {summary(exc)}"


def _is_required(parameter: inspect.Parameter) -> bool:
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter.default is inspect.Parameter.empty and parameter.kind not in variable


def _method(step: Step, target: Any) -> Iterator[tuple[str, str]]:
    """Whether there is something to call: the handler's method, or one of those that are looked for."""
    name = getattr(target, "__name__", type(target).__name__)
    if step.handler is not None:
        if not isinstance(step.handler, str):
            yield "bad-handler", f"handler must name a method of {name} when there is a class"
        elif not _may_have(target, step.handler):
            methods = [m for m in dir(target) if not m.startswith("_") and callable(getattr(target, m, None))]
            yield "bad-handler", f"{name} has no method {step.handler!r}; {closest(step.handler, methods)}"
    elif isinstance(target, type) and not (
        any(_may_have(target, m) for m in _METHODS)
        or getattr(target, "merges", False) is True
        or any("__call__" in vars(c) for c in target.__mro__)
    ):
        message = (
            f"{name} cannot be a step: it has no do_event, do or select_outlets method, "
            "no handler is named and its objects cannot be called"
        )
        yield "no-method", message


def _may_have(target: Any, method: str) -> bool:
    """Whether an object has a method, as far as its class tells; one set in the constructor may be annotated."""
    if callable(getattr(target, method, None)):
        return True
    if not isinstance(target, type):
        return False
    return any("__getattr__" in vars(c) or method in vars(c).get("__annotations__", {}) for c in target.__mro__)


def _paths(step: Step) -> Iterator[tuple[str, str]]:
    for compile_path, path in ((compile_input_path, step.input_path), (compile_result_path, step.result_path)):
        try:
            compile_path(path)
        except GraphError as exc:
            yield "bad-path", exc.message


def _export(step: Step) -> Iterator[tuple[str, str]]:
    try:
        code_of(step, "$")
        plain_value(step.policy.to_dict(), "$.policy")
        if isinstance(step, QueueStep):
            plain_value(step.trigger_args, "$.trigger_args")
            plain_value(step.stream_options, "$.options")
    except SpecError as exc:
        yield "not-exportable", exc.message.removeprefix("$.")
