"""The component of a source folder, found by reading its code and never by running it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from typing import Final

from servegraph.errors import SettingsError, closest
from servegraph.graph.spec_text import MAX_SPEC_BYTES
from servegraph.runtimes.packaging.environment import Variable
from servegraph.runtimes.packaging.sources import Sources
from servegraph.runtimes.source import SPEC_SUFFIXES
from servegraph.serving.seldon.deployment_reading import KIND

METHODS: Final = frozenset(
    f"{name}{form}"
    for name in ("predict", "transform_input", "transform_output", "route", "aggregate", "send_feedback", "score")
    for form in ("", "_raw", "_rest", "_grpc")
)
"""A class with one of these is a component."""
_MOST_FILES: Final = 200
_INSTALLED: Final = ("servegraph", "seldon_core")
_EXTENSIONS: Final = (".so", ".pyd")


def check_model_name(model: Variable, sources: Sources, folders: Iterable[str] = ("",)) -> None:
    """See that a source folder holds the class that ``MODEL_NAME`` names.

    Args:
        model: the variable.
        sources: what goes into the image.
        folders: where modules are imported from, each ``""`` or ending in ``/``.

    Raises:
        SettingsError: it names nothing in the folder; the message lists the components that are there.
    """
    parts = model.value.split(".")
    if not all(part.isidentifier() for part in parts):
        raise SettingsError(
            f"{model.place}: MODEL_NAME is a class as Python imports it, 'MyModel' or 'package.module.MyModel', "
            f"not {model.value!r}"
        )
    if parts[0] in _INSTALLED:  # one of the servers that come with servegraph
        return
    module, name = ("/".join(parts[:-1]), parts[-1]) if len(parts) > 1 else (parts[0], parts[0])
    folders = list(folders)
    path = next(filter(None, (_module_file(sources, folder + module) for folder in folders)), None)
    if path is None:
        raise SettingsError(_no_module(model, module, sources, folders))
    if path.endswith(_EXTENSIONS):
        return
    names = names_of(_tree(sources, path))
    if names is not None and name not in names:
        raise SettingsError(
            f"{model.place}: MODEL_NAME is {model.value!r}, and {path} defines no {name!r}; {_there(sources, folders)}"
        )


def find_components(sources: Sources, folders: Iterable[str] = ("",)) -> list[str]:
    """The classes that look like components, as ``MODEL_NAME`` would name them; no test modules among them."""
    found = []
    for path, folder in _modules(sources, folders):
        try:
            tree = _tree(sources, path)
        except SettingsError:  # told when it is the one that is asked for
            continue
        module = path.removeprefix(folder).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and _is_component(node):
                found.append(node.name if node.name == module else f"{module}.{node.name}")
    return sorted(found)


def deployments_in(sources: Sources) -> Iterator[str]:
    """The files at the top of a source folder that hold a SeldonDeployment."""
    for path, entry in sources.entries.items():
        if entry.kind == "file" and "/" not in path and path.endswith(SPEC_SUFFIXES):
            with (sources.root / path).open("rb") as file:
                if KIND.encode() in file.read(MAX_SPEC_BYTES):
                    yield path


def names_of(tree: ast.Module) -> set[str] | None:
    """The names that a module has once it is imported; ``None`` where only running it can tell."""
    names: set[str] = set()
    for node in _statements(tree.body):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name))
    return None if names & {"*", "__getattr__"} else names


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run at module level, also those in ``if``, ``try``, ``with`` and loops."""
    for node in body:
        yield node
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        for name in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(node, name, []))
        for handler in getattr(node, "handlers", []):
            yield from _statements(handler.body)


def _is_component(node: ast.ClassDef) -> bool:
    methods = {each.name for each in node.body if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))}
    bases = {base.id if isinstance(base, ast.Name) else getattr(base, "attr", "") for base in node.bases}
    return bool(methods & METHODS) or "SeldonComponent" in bases


def _module_file(sources: Sources, module: str) -> str | None:
    """The file of a module, by its path without ending."""
    for path in (f"{module}/__init__.py", f"{module}.py"):
        if sources.has_file(path):
            return path
    prefix = f"{module}."
    compiled = (p for p in sources.entries if p.startswith(prefix) and p.endswith(_EXTENSIONS) and sources.has_file(p))
    return next(compiled, None)


def _modules(sources: Sources, folders: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The Python files of the folder and of the packages in it, each with the folder it is imported from."""
    known: set[str] = set()
    for folder in sorted(folders, key=len, reverse=True):
        for path, entry in sources.entries.items():
            inside = path.removeprefix(folder)
            name = inside.rpartition("/")[2]
            importable = all(part.isidentifier() for part in inside.removesuffix(".py").split("/"))
            if entry.kind == "file" and path.startswith(folder) and name.endswith(".py") and importable:
                if path in known or name.startswith("test_") or len(known) >= _MOST_FILES:
                    continue
                known.add(path)
                yield path, folder


def _tree(sources: Sources, path: str) -> ast.Module:
    file = sources.root / path
    try:
        return ast.parse(file.read_bytes(), filename=str(file))
    except OSError as exc:
        raise SettingsError(f"{file} cannot be read: {exc.strerror}") from exc
    except SyntaxError as exc:
        raise SettingsError(f"{file}:{exc.lineno or 1}: this is no Python 3: {exc.msg}") from exc
    except ValueError as exc:
        raise SettingsError(f"{file} is no Python: {exc}") from exc
    except RecursionError as exc:
        raise SettingsError(f"{file} is nested too deeply to be read") from exc


def _no_module(model: Variable, module: str, sources: Sources, folders: list[str]) -> str:
    files = [f"{folder}{module}{ending}" for folder in folders for ending in (".py", "/__init__.py")]
    left_out = next((path for path in files if sources.is_left_out(path) and (sources.root / path).is_file()), None)
    if left_out:
        return f"{model.place}: MODEL_NAME is {model.value!r}, but an ignore file leaves out {left_out}"
    return (
        f"{model.place}: MODEL_NAME is {model.value!r}, and {sources.root} holds no {files[0]}; "
        f"{_there(sources, folders, model.value)}"
    )


def _there(sources: Sources, folders: list[str], name: str = "") -> str:
    components = find_components(sources, folders)
    if not components:
        return "nor anything else that looks like a component (a class with predict, transform_input, route, ...)"
    return closest(name, components)
