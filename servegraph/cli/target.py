"""Loads the function that a command names, and shows where the user's own code failed."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

from servegraph.errors import ServegraphError, users_part
from servegraph.runtimes.function import ServingFunction
from servegraph.runtimes.source import load_function


class TargetError(ServegraphError):
    """The user's file raised; its traceback has been shown."""


def load_target(target: str, name: str | None = None, components: Mapping[str, str] | None = None) -> ServingFunction:
    """The function of a target; see `load_function`.

    Raises:
        TargetError: the user's own code raised; its traceback is on standard error.
        ServegraphError: there is no such function, or it cannot be read.
    """
    try:
        return load_function(target, name, components)
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
