"""Modules of component files: each is imported once, and imports what is beside it.

The nodes of a deployment were written for containers of their own, so two folders may hold modules of the same name,
and Python knows each name once. While a file is imported its folder comes first and modules of that name from the
folders of other components are out of sight; afterwards the name means again what it meant before.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import logging
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from servegraph.errors import GraphError
from servegraph.serving.seldon.flask_context import add_flask_hint

logger = logging.getLogger("servegraph.serving.seldon")


@dataclass(slots=True)
class _Folder:
    """What is known of a folder from which components are imported."""

    modules: dict[str, ModuleType] = field(default_factory=dict)
    """What was imported from it, by name: what its components have got."""
    later: set[str] = field(default_factory=set)
    """Names that its code imports inside functions."""


_importing = threading.RLock()
_folders: dict[str, _Folder] = {}
_warned: set[tuple[str, frozenset[str]]] = set()


def add_folder(folder: str) -> None:
    """Have modules looked for in a folder, after all other places."""
    with _importing:
        if folder not in sys.path:
            sys.path.append(folder)
        _folders.setdefault(folder, _Folder())


def module_of_file(file: Path) -> ModuleType:
    """The module of a file, imported once under a name of its own: many components are called ``Model.py``.

    Raises:
        GraphError: there is no such file, or it is none of Python's.
        Exception: whatever its code raises.
    """
    if not file.is_file():
        raise GraphError(f"there is no file {str(file)!r}")
    digest = hashlib.sha256(str(file).encode("utf-8", "surrogatepass")).hexdigest()[:10]
    name = f"servegraph_component_{re.sub(r'[^A-Za-z0-9_]', '_', file.stem)}_{digest}"
    with _importing:
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise GraphError(f"{str(file)!r} is not a Python file (.py)")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            with _own_modules(str(file.parent)):
                spec.loader.exec_module(module)
        except BaseException as exc:
            sys.modules.pop(name, None)
            if isinstance(exc, ImportError):
                add_flask_hint(exc)
            raise
        _look_for_late_imports(str(file.parent), module)
        return module


@contextmanager
def _own_modules(folder: str) -> Iterator[None]:
    """Import from a folder before all others, as if no other component's folder were known."""
    known = _folders.setdefault(folder, _Folder())
    hidden = _taken_out(_foreign(folder))
    sys.modules.update({name: module for name, module in known.modules.items() if name not in sys.modules})
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:  # unless its code has taken it out
            sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)  # for what is imported inside functions
        now = dict(sys.modules)
        own = {name for name in now if "." not in name and _folder_of(now[name]) == folder}
        known.modules.update({name: module for name, module in now.items() if _top(name) in own})
        _taken_out({_top(name) for name in hidden})
        sys.modules.update(hidden)


def _foreign(folder: str) -> set[str]:
    """The imported modules that the folder has too, and that came from another component's folder."""
    names = [name for name in list(sys.modules) if "." not in name]
    others = [n for n in names if (place := _folder_of(sys.modules[n])) in _folders and place != folder]
    return {name for name in others if _has(folder, name)}


def _taken_out(names: set[str]) -> dict[str, ModuleType]:
    """Modules with all that is in them, no longer known to Python."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if _top(name) in names}


def _top(name: str) -> str:
    return name.partition(".")[0]


def _folder_of(module: ModuleType | None) -> str | None:
    """The folder in which a module, or the folder of a package, stands."""
    fields = getattr(module, "__dict__", {})
    places = list(fields.get("__path__") or ())
    file = places[0] if places else fields.get("__file__")
    return str(Path(file).parent) if isinstance(file, str) else None


def _has(folder: str, name: str) -> bool:
    """Whether a folder holds a module or package of a name."""
    spec = PathFinder.find_spec(name, [folder])
    if spec is None:
        return False
    # Any folder is a package without ``__init__.py``: one without code is data.
    return spec.has_location or any(Path(folder, name).rglob("*.py"))


# -- imports inside functions, which come when no folder is first any more ---------------------------------------------


def _look_for_late_imports(folder: str, module: ModuleType) -> None:
    """Warn of names that code in a folder imports inside functions, when another folder has them too."""
    known = _folders[folder]
    for each in (module, *known.modules.values()):
        known.later.update(_imported_late(each))
    for other, their in _folders.items():
        if other == folder:
            continue
        ambiguous = [(name, folder) for name in known.later if _has(other, name) and _has(folder, name)]
        ambiguous += [(name, other) for name in their.later if _has(folder, name) and _has(other, name)]
        _warn(ambiguous, folder, other)


def _warn(ambiguous: Iterable[tuple[str, str]], folder: str, other: str) -> None:
    for name, place in sorted(ambiguous):
        key = (name, frozenset((folder, other)))
        if key in _warned or _folder_of(sys.modules.get(name)) == place:
            continue
        _warned.add(key)
        logger.warning(
            "the module %r is imported inside a function of a component in %s, and both %s and %s have one: which of "
            "them it gets is not certain: import it at the top of the file, or put it into a package of another name",
            name, place, *sorted((folder, other)),
        )  # fmt: skip


def _imported_late(module: ModuleType) -> set[str]:
    """The names of modules that the functions of a module import."""
    file = vars(module).get("__file__")
    if not isinstance(file, str) or not file.endswith(".py"):
        return set()
    found: set[str] = set()
    for function in ast.walk(ast.parse(Path(file).read_bytes())):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for node in ast.walk(function):
                if isinstance(node, ast.Import):
                    found.update(_top(alias.name) for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                    found.add(_top(node.module))
    return found
