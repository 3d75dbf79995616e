"""Loads the function that a command names, and shows where the user's own code failed."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path

import click

from servegraph.errors import ServegraphError, SettingsError, users_part
from servegraph.runtimes.function import ServingFunction
from servegraph.runtimes.source import load_function


class TargetError(ServegraphError):
    """The user's file raised; its traceback has been shown."""


component_option = click.option(
    "--component", "components", multiple=True, metavar="NODE=CODE", help="Local code of a SeldonDeployment's node."
)
"""The option of all commands that load a function; `components_of` reads it."""


def assignment(text: str, form: str = "--set takes NAME=VALUE") -> tuple[str, str]:
    """The two sides of an option of the form ``NAME=VALUE``.

    Raises:
        SettingsError: it is none; the message says what the option takes.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise SettingsError(f"{form}, not {text!r}")
    return name, value


def components_of(given: Iterable[str]) -> dict[str, str]:
    """The code by node that ``--component`` names.

    Raises:
        SettingsError: one is no ``NODE=CODE``, or a node is named twice.
    """
    found: dict[str, str] = {}
    for text in given:
        name, code = assignment(text, "--component takes NODE=module:Class")
        if name in found:
            raise SettingsError(f"--component {name} is given twice: {found[name]!r} and {code!r}")
        found[name] = code
    return found


def load_target(
    target: str,
    name: str | None = None,
    components: Mapping[str, str] | None = None,
    *,
    code_needed: bool = True,
) -> ServingFunction:
    """The function of a target; see `load_function`.

    Raises:
        TargetError: the user's own code raised; its traceback is on standard error.
        ServegraphError: there is no such function, or it cannot be read.
    """
    try:
        return load_function(target, name, components, code_needed=code_needed)
    except ServegraphError:
        raise
    except Exception as exc:
        show_traceback(exc)
        raise TargetError(f"{target} cannot be loaded: its code raised {type(exc).__name__}") from exc


def show_traceback(exc: BaseException) -> None:
    """Write a traceback to standard error, from the first line that is the user's."""
    traceback.print_exception(type(exc), exc, users_part(exc.__traceback__), file=sys.stderr)


def watched(target: str, function: ServingFunction) -> list[str]:
    """The files and folders whose change means that the function has changed."""
    path = Path(target if Path(target).exists() else target.rpartition(":")[0])
    found: list[Path] = []
    if target and path.exists() and path != Path():
        found.append(path)
    else:  # module:attr
        module = sys.modules.get(target.partition(":")[0])
        file = getattr(module, "__file__", None)
        if file:
            found.append(Path(file))
    if function.spec.filename:
        found.append(Path(function.spec.filename))
    folders = {p.resolve() if p.is_dir() else p.resolve().parent for p in found}
    return sorted(map(str, folders))
