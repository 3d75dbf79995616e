"""Which methods an object has for Seldon's operations, and how each is called: found out once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias

from servegraph.errors import GraphError, closest
from servegraph.graph.resolve import is_async
from servegraph.serving.seldon.raw import LowLevel, low_level
from servegraph.serving.seldon.signatures import Invoke, takes_feedback, takes_lists, takes_little, takes_rows

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


class Methods:
    """The methods of one object.

    A method that cannot be called, because it takes arguments that nothing gives it, fails only the requests that
    need it: many components have such a method that no request of theirs ever calls.
    """

    def __init__(self, user_object: Any) -> None:
        self._object = user_object
        self.operations: dict[str, Invoke] = {}
        """The plain method of each operation that has one."""
        self.low_level: dict[tuple[str, str], LowLevel] = {}
        """The low-level methods by operation and transport."""
        self.coroutines: set[str] = set()
        """The methods that need an event loop."""
        self.problems: list[str] = []
        """Why methods cannot be called, for those that cannot."""
        for op in OPERATIONS:
            self._inspect(op)
        self.score = self._outlier_score()
        self.tags = self._plain("tags")
        self.metrics = self._plain("metrics")
        self.class_names = self._names_source()

    def has(self, op: str) -> bool:
        """Whether there is a method for an operation."""
        return op in self.operations or (op, "rest") in self.low_level or (op, "grpc") in self.low_level

    def _inspect(self, op: str) -> None:
        method = getattr(self._object, op, None)
        if callable(method):
            self.operations[op] = self._bound(method, op, _BINDERS[op])
            if is_async(method):
                self.coroutines.add(op)
        for transport in ("rest", "grpc"):
            found = low_level(self._object, op, transport)
            if found is not None:
                self.low_level[op, transport] = found
                if any(is_async(call.function) for call in found.calls):
                    self.coroutines.add(op)

    def _bound(
        self, method: Callable[..., Any], name: str, bind: Callable[[Callable[..., Any], str], Invoke]
    ) -> Invoke:
        try:
            return bind(method, name)
        except GraphError as exc:
            problem = f"{type(self._object).__name__}.{exc.message}"
        self.problems.append(problem)

        def refuse(*_: Any) -> Any:
            raise GraphError(problem)

        return refuse

    def _plain(self, name: str) -> Invoke | None:
        method = getattr(self._object, name, None)
        if not callable(method):
            return None
        if is_async(method):
            self.coroutines.add(name)
        return self._bound(method, name, takes_little)

    def _outlier_score(self) -> Invoke | None:
        """The ``score`` of an outlier detector of Seldon 0.x, which has no other method for requests.

        Models have one too that means something else, as those of scikit-learn do.
        """
        method = getattr(self._object, "score", None)
        if not callable(method) or self.has("transform_input") or self.has("predict"):
            return None
        if is_async(method):
            self.coroutines.add("score")
        return self._bound(method, "score", takes_rows)

    def _names_source(self) -> Invoke:
        """The names of columns: of a method, or of an attribute, which may be set at any time."""
        if callable(getattr(self._object, "class_names", None)):
            method = self._plain("class_names")
            assert method is not None
            return method
        user_object = self._object
        return lambda values: getattr(user_object, "class_names", None)


def check_operation(op: str) -> Operation:
    """An operation's name, checked.

    Raises:
        GraphError: there is none of that name.
    """
    for known in OPERATIONS:
        if op == known:
            return known
    raise GraphError(f"{op!r} is no operation of a Seldon component; {closest(op, OPERATIONS)}")
