"""What can be found wrong in the arguments of a Seldon node before it is made: parameters, module, class."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from servegraph.errors import GraphError, SettingsError, summary
from servegraph.serving.seldon.bandits import Bandit
from servegraph.serving.seldon.environment import NodeEnvironment
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.locate import RUNTIME_PARAMETERS, find_component
from servegraph.serving.seldon.node_start import operators_variables
from servegraph.serving.seldon.parameters import typed_parameters
from servegraph.serving.seldon.unit_options import UnitOptions
from servegraph.serving.v2 import V2ModelServer


def unit_problems(arguments: Mapping[str, Any], folder: str | None = None) -> Iterator[tuple[str, str]]:
    """Code and message of each problem in the arguments of a `SeldonUnit`; the component's module is imported.

    Args:
        arguments: ``component``, ``parameters``, ``unit``.
        folder: where the component is looked for besides all other places.
    """
    try:
        options = UnitOptions.from_dict(arguments.get("unit"))
        parameters = typed_parameters(arguments.get("parameters"))
    except (GraphError, SettingsError, SeldonMicroserviceException) as exc:
        yield "bad-argument", exc.message
        return
    component = arguments.get("component")
    if component is None:
        component = options.packaged or None
    if options.hard_coded or options.endpoint is not None or component is None:
        return
    told = operators_variables(options.name, options, arguments.get("parameters"))
    variables = NodeEnvironment(options.name, {**told, **options.env}, told)
    try:
        with variables.given():  # what its module reads while it is imported
            factory = find_component(component, folder) if isinstance(component, str) else component
    except GraphError as exc:
        yield "unknown-code", exc.message
    except Exception as exc:  # noqa: BLE001 - whatever the component's module raises when it is imported
        yield "unknown-code", f"importing {component!r} failed: {summary(exc)}"
    else:
        yield from _call_problems(factory, parameters)
    finally:
        variables.put_back()


def _call_problems(factory: Any, parameters: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Whether a class takes the parameters; not asked of classes to which the tree gives further ones."""
    if not isinstance(factory, type) or issubclass(factory, (Bandit, V2ModelServer)):
        return
    try:
        signature = inspect.signature(factory)
    except (ValueError, TypeError):  # written in C: it says itself what it does not take
        return
    known = signature.parameters
    given = {n: v for n, v in parameters.items() if n in known or n not in RUNTIME_PARAMETERS}
    try:
        signature.bind(**given)
    except TypeError as exc:
        message = f"{factory.__name__} cannot be made with parameters {', '.join(given) or 'none'}: {exc}"
        yield "bad-argument", message
