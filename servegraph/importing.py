"""Imports named by strings: ``module:attr`` and ``package.module.attr``, and optional packages."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from servegraph.errors import GraphError, MissingExtraError, closest


def import_extra(module: str, *, feature: str, extra: str) -> ModuleType:
    """The imported optional module, or `MissingExtraError` with the line that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as exc:
        # A module that is there but misses one of its own imports is another fault: let it be seen.
        if not _is_missing(module, exc):
            raise
        raise MissingExtraError(feature, extra) from exc


def import_object(reference: str) -> Any:
    """The object behind ``module:attr`` or ``package.module.attr``.

    Both may go on into classes: ``module:Class.method``, ``package.module.Class.method``.

    Raises:
        GraphError: the reference is not of that form, or the module or the attribute is not there; an
            import that fails inside the user's own module is raised as it is.
    """
    module_name, attribute = _split(reference)
    while True:
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as exc:
            if not _is_missing(module_name, exc):
                raise
            parent, _, child = module_name.rpartition(".")
            if ":" in reference or not parent or exc.name != module_name:
                raise GraphError(f"cannot import {reference!r}: there is no module {exc.name!r}") from exc
            # The last part may be a class: package.module.Class.method.
            module_name, attribute = parent, f"{child}.{attribute}"
        else:
            return _attribute(module, attribute, reference)


def _split(reference: str) -> tuple[str, str]:
    module_name, _, attribute = reference.partition(":") if ":" in reference else reference.rpartition(".")
    parts = [*module_name.split("."), *attribute.split(".")]
    if not all(part.isidentifier() for part in parts):
        raise GraphError(f"{reference!r} is not a reference: write 'module:name' or 'package.module.name'")
    return module_name, attribute


def _attribute(owner: Any, attribute: str, reference: str) -> Any:
    for part in attribute.split("."):
        try:
            owner = getattr(owner, part)
        except AttributeError as exc:
            name = getattr(owner, "__name__", repr(owner))
            public = (n for n in dir(owner) if not n.startswith("_"))
            raise GraphError(
                f"cannot import {reference!r}: {name!r} has no attribute {part!r}; {closest(part, public)}"
            ) from exc
    return owner


def _is_missing(module_name: str, error: ModuleNotFoundError) -> bool:
    """Whether the module itself, or a package above it, is not there (and not one that it imports)."""
    return error.name is not None and f"{module_name}.".startswith(f"{error.name}.")
