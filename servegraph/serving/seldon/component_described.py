"""What a component that is served alone tells people of itself: its operations, and a request that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from servegraph.serving.description import SelfDescription
from servegraph.serving.seldon.example_messages import ANY_MESSAGE, said_example
from servegraph.serving.seldon.metadata import ModelMetadata
from servegraph.serving.seldon.methods import OPERATIONS
from servegraph.serving.seldon.openapi import seldon_json

_ENDINGS: Final = ("", "_raw", "_rest", "_grpc")
_TRIED: Final[Mapping[str, tuple[str, str]]] = {
    "predict": ("/predict", "/api/v1.0/predictions"),
    "transform_input": ("/transform-input", ""),
    "score": ("/transform-input", ""),
    "route": ("/route", ""),
    "transform_output": ("/transform-output", ""),
    "aggregate": ("/aggregate", ""),
}
"""The operations that may be tried, for they teach nothing: their paths, and another one of the same meaning."""


def describe_component(name: str, user_object: Any, metadata: ModelMetadata | None) -> SelfDescription:
    """A component of a name."""
    own = own_methods(user_object)
    op = next((op for op in _TRIED if op in own), "")
    path, also = _TRIED.get(op, ("/health/status", ""))
    body: Any = None
    if op:
        body = said_example(user_object, metadata) or ANY_MESSAGE
        body = {"seldonMessages": [body]} if op == "aggregate" else body
    return SelfDescription(
        path,
        body,
        also,
        rows=(("component", f"{name}: {', '.join(own)}" if own else name),),
        openapi=seldon_json(),
        title=name,
    )


def own_methods(user_object: Any) -> list[str]:
    """The operations that an object has methods for; those of ``SeldonComponent`` are none."""
    own = set(getattr(user_object, "__dict__", ()))
    for cls in type(user_object).__mro__:
        if cls.__name__ != "SeldonComponent":
            own |= vars(cls).keys()
    found: list[str] = [op for op in OPERATIONS if any(f"{op}{ending}" in own for ending in _ENDINGS)]
    return ["score"] if "score" in own and not found else found
