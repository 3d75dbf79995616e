"""From a component's name to its class, as Seldon's command finds it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from servegraph.errors import GraphError, closest
from servegraph.importing import import_object
from servegraph.serving.seldon.flask_context import add_flask_hint
from servegraph.serving.seldon.names import install_names
from servegraph.serving.seldon.servers.implementations import server_reference


def find_component(name: str, folder: str | Path | None = None) -> Any:
    """The class (or whatever is called to make a component) of a name.

    Args:
        name: ``Name`` is the class of that name in the module of that name; ``package.module.Name`` and
            ``package.module:Name`` are what they say; names of packaged servers are known too.
        folder: where its module is looked for, after all other places; the working directory when not given.

    Raises:
        GraphError: there is no such module or class.
        Exception: whatever the module's own code raises.
    """
    place = str(Path(folder or ".").absolute())
    if place not in sys.path:
        sys.path.append(place)
    install_names()
    if ":" in name:
        return import_object(name)
    module_name, dot, class_name = name.rpartition(".")
    if not dot:
        module_name = class_name
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        add_flask_hint(exc)
        if exc.name is None or not f"{module_name}.".startswith(f"{exc.name}."):
            raise
        packaged = server_reference(name)
        if packaged is not None:
            return import_object(packaged)
        raise GraphError(
            f"there is no module {exc.name!r} for the component {name!r}, neither installed nor in {place}"
        ) from exc
    except ImportError as exc:
        add_flask_hint(exc)
        raise
    try:
        return getattr(module, class_name)
    except AttributeError:
        classes = [n for n, v in vars(module).items() if isinstance(v, type) and v.__module__ == module.__name__]
        raise GraphError(f"module {module_name!r} has no {class_name!r}; {closest(class_name, classes)}") from None


def make_component(factory: Any, parameters: dict[str, Any]) -> Any:
    """A component of a class with its parameters; an object that is no class is the component itself.

    Raises:
        GraphError: it takes other parameters.
        Exception: whatever its constructor raises.
    """
    if not isinstance(factory, type) and not callable(factory):
        if parameters:
            raise GraphError(f"{type(factory).__name__} is an object already: parameters are for a class")
        return factory
    if not isinstance(factory, type) and hasattr(factory, "predict"):
        return factory
    try:
        return factory(**parameters)
    except TypeError as exc:
        trace = exc.__traceback__
        if trace is not None and trace.tb_next is None:  # the call itself, not what the constructor does
            name = getattr(factory, "__name__", type(factory).__name__)
            raise GraphError(f"{name} cannot be made with parameters {', '.join(parameters) or 'none'}: {exc}") from exc
        raise
