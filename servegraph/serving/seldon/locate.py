"""From what names a component to the component: the one place where its class is found and made."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from servegraph.errors import GraphError, closest
from servegraph.importing import import_object
from servegraph.serving.seldon.file_modules import add_folder, module_of_file
from servegraph.serving.seldon.flask_context import add_flask_hint
from servegraph.serving.seldon.names import install_names
from servegraph.serving.seldon.servers.implementations import IMPLEMENTATIONS, server_class, server_reference

RUNTIME_PARAMETERS: Final = ("push_frequency",)
"""Parameters that are for the runtime, and for the class only where it takes them."""


def component_of(reference: Any, parameters: Mapping[str, Any], folder: str | Path | None = None) -> Any:
    """The component that a class, an object or a name stands for, made with its parameters.

    Raises:
        GraphError: there is no such component, or it takes other parameters.
        Exception: whatever its module or its constructor raises.
    """
    factory = find_component(reference, folder) if isinstance(reference, str) else reference
    return make_component(factory, parameters)


def find_component(name: str, folder: str | Path | None = None) -> Any:
    """The class (or whatever is called to make a component) of a name.

    Args:
        name: ``Name`` is the class of that name in the module of that name; ``package.module.Name`` and
            ``package.module:Name`` are what they say; ``folder/File.py:Name`` is in that file, and ``folder/File.py``
            the class of the file's name; names of packaged servers are known too.
        folder: where modules are looked for, after all other places, and where files are; the working directory
            when not given.

    Raises:
        GraphError: there is no such module, file or class.
        Exception: whatever the module's own code raises.
    """
    install_names()
    if name in IMPLEMENTATIONS:
        return server_class(name)
    place, colon, attribute = name.partition(":")
    if place.endswith(".py"):
        file = Path(folder or ".", place).expanduser().resolve()
        return _of_module(module_of_file(file), attribute if colon else file.stem, name)
    path = str(Path(folder or ".").absolute())
    add_folder(path)
    if colon:
        return _with_hint(import_object, name)
    if not name or name.startswith("."):
        raise GraphError(f"{name!r} is no name of a component: write Name, package.module.Name or File.py:Name")
    module_name, dot, last = name.rpartition(".")
    if not dot:
        module_name = last
    try:
        module = _with_hint(importlib.import_module, module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{module_name}.".startswith(f"{exc.name}."):
            raise
        packaged = server_reference(name)
        if packaged is not None:
            return import_object(packaged)
        raise GraphError(
            f"there is no module {exc.name!r} for the component {name!r}, neither installed nor in {path}"
        ) from exc
    return _of_module(module, last, name)


def _with_hint(importing: Any, name: str) -> Any:
    try:
        return importing(name)
    except ImportError as exc:
        add_flask_hint(exc)
        raise


def _of_module(module: ModuleType, name: str, reference: str) -> Any:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            classes = [k for k, v in vars(module).items() if isinstance(v, type) and v.__module__ == module.__name__]
            where = f"module {module.__name__!r}" if module.__file__ is None else f"{module.__file__}"
            raise GraphError(f"component {reference!r}: {where} has no {name!r}; {closest(name, classes)}")
        found = getattr(found, part)
    return found


def class_name(reference: str) -> str:
    """The last part of a component's name: that of its class."""
    place, colon, attribute = reference.partition(":")
    return attribute if colon else Path(place).stem if place.endswith(".py") else place.rpartition(".")[2]


class FunctionModel:
    """A function ``f(X)`` or ``f(X, names)`` as a component.

    Args:
        function: what predicts; its first argument is called ``X``, or it would be called to make a component.
        parameters: none, since nothing takes them.

    Raises:
        GraphError: there are parameters.
    """

    def __init__(self, function: Any, parameters: Mapping[str, Any]) -> None:
        if parameters:
            raise GraphError(
                f"{function.__name__} is a function of X: parameters are for a class ({', '.join(parameters)})"
            )
        self.predict = function


def make_component(factory: Any, parameters: Mapping[str, Any]) -> Any:
    """A component of a class with its parameters; an object that is no class is the component itself.

    A function is called to make a component, but is the component's ``predict`` when its first argument is ``X``.

    Raises:
        GraphError: it takes other parameters.
        Exception: whatever its constructor raises.
    """
    if not isinstance(factory, type) and not callable(factory):
        given = [name for name in parameters if name not in RUNTIME_PARAMETERS]
        if given:
            raise GraphError(f"{type(factory).__name__} is an object already: parameters are for a class")
        return factory
    if not isinstance(factory, type) and hasattr(factory, "predict"):
        return factory
    if inspect.isfunction(factory) and next(iter(inspect.signature(factory).parameters), "") == "X":
        return FunctionModel(factory, parameters)
    try:
        return factory(**_taken(factory, parameters))
    except TypeError as exc:
        trace = exc.__traceback__
        if trace is not None and trace.tb_next is None:  # the call itself, not what the constructor does
            name = getattr(factory, "__name__", type(factory).__name__)
            raise GraphError(f"{name} cannot be made with parameters {', '.join(parameters) or 'none'}: {exc}") from exc
        raise


def _taken(factory: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters without those that are for the runtime alone."""
    if not any(name in parameters for name in RUNTIME_PARAMETERS):
        return dict(parameters)
    try:
        signature = inspect.signature(factory)
    except (ValueError, TypeError):  # written in C: it says itself what it does not take
        return dict(parameters)
    if any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
        return dict(parameters)
    return {n: v for n, v in parameters.items() if n in signature.parameters or n not in RUNTIME_PARAMETERS}
