"""The one module that Nuclio imports: the function's code with a footer; and whether it has what the graph names."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from servegraph.errors import SettingsError, SpecError, closest
from servegraph.graph.resolve import ALIASES
from servegraph.graph.spec_fields import at
from servegraph.runtimes.code import read_code
from servegraph.runtimes.function import ServingFunction

_RULE: Final = "# " + "-" * 118
_FOOTER: Final = f'''

{_RULE}
# Added by servegraph: what Nuclio calls.
{{keep}}from servegraph.runtimes.nuclio import handler as _servegraph_nuclio


{{init}}

async def {{handler}}(context, event):
    """Answer one event."""
    return await _servegraph_nuclio.handle(context, event)
'''
_INIT: Final = '''def init_context(context):
    """Load the models, once per process."""
    _servegraph_nuclio.init_context(context, globals())
'''
_INIT_AFTER: Final = '''{define} init_context(context):
    """Run the code's own hook, then load the models, once per process."""
    {wait}_servegraph_user_init(context)
    _servegraph_nuclio.init_context(context, globals())
'''
_HOW: Final = (
    "make the function with code_to_function(filename=...), or give the code's file with new_function(command=...)"
)


@dataclass(frozen=True, slots=True)
class ModuleText:
    """The module that Nuclio imports."""

    text: str
    """Its Python text."""
    handler: str
    """The name of the handler in it."""


def module_text(function: ServingFunction, spec: Mapping[str, Any]) -> ModuleText:
    """The module of a function.

    Args:
        function: the function.
        spec: the function's spec, as `function_to_dict` writes it.

    Raises:
        SpecError: the graph names code that is neither in the module nor in an installed package.
    """
    code = _code(function)
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError) as exc:
        raise SpecError(f"$.spec.source: the function's code is no Python: {exc}") from exc
    names = _Names(tree)
    _check_references(spec, names, bool(code.strip()))
    _check_imports(names, function)
    handler = "handler"
    while handler in names.bound:
        handler = f"servegraph_{handler}"
    footer = _FOOTER.format(
        keep="_servegraph_user_init = init_context\n" if names.init else "", init=_init(names), handler=handler
    )
    return ModuleText(code.rstrip() + footer if code.strip() else footer.lstrip("\n"), handler)


def _init(names: _Names) -> str:
    if not names.init:
        return _INIT
    waits = isinstance(names.init, ast.AsyncFunctionDef)
    return _INIT_AFTER.format(define="async def" if waits else "def", wait="await " if waits else "")


def _code(function: ServingFunction) -> str:
    """The text of the function's code; empty when it has none."""
    if function.spec.source:
        return function.spec.source.replace("\r\n", "\n")
    if not function.spec.filename:
        return ""
    try:
        return read_code(function.spec.filename, function.name).source
    except SettingsError as exc:
        raise SpecError(f"$.spec.filename: {exc.message}") from exc


class _Names:
    """What a module binds at its top level."""

    def __init__(self, tree: ast.Module) -> None:
        self.bound: set[str] = set()
        self.open = False
        """Whether there is an ``import *``, so that other names may be there as well."""
        self.imports: list[str] = []
        """The modules that it imports."""
        self.init: ast.FunctionDef | ast.AsyncFunctionDef | None = None
        for node in _top_level(tree.body):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                self.bound.add(node.name)
                if node.name == "init_context" and not isinstance(node, ast.ClassDef):
                    self.init = node
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                self.bound.update(a.asname or a.name.partition(".")[0] for a in node.names)
                self.imports += (
                    [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
                )
                self.open = self.open or any(a.name == "*" for a in node.names)
            else:
                self.bound.update(n.id for n in ast.walk(node) if isinstance(n, ast.Name) and _binds(n))


def _binds(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run in the module's own scope, also those in blocks."""
    for node in body:
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            for field in ("body", "orelse", "finalbody"):
                yield from _top_level(getattr(node, field, []))
            for handler in getattr(node, "handlers", []):
                yield from _top_level(handler.body)


# -- references --------------------------------------------------------------------------------------------------------


def _check_references(spec: Mapping[str, Any], names: _Names, has_code: bool) -> None:
    found = list(_references(spec.get("graph") or {}, "$.spec.graph"))
    if "graph_initializer" in spec:
        found.append(("$.spec.graph_initializer", spec["graph_initializer"]))
    distributions: Mapping[str, Any] | None = None
    for path, reference in found:
        head = reference.partition(":")[0].partition(".")[0]
        if head in names.bound:
            continue
        if reference.isidentifier() or (not has_code and head == "__main__"):
            if names.open:
                continue
            if has_code:
                raise SpecError(f"{path}: the function's code has no {head!r}; {closest(head, names.bound)}")
            raise SpecError(f"{path}: {reference!r} is in no code that the function carries: {_HOW}")
        if head == "servegraph" or head in sys.stdlib_module_names:
            continue
        if distributions is None:
            distributions = importlib.metadata.packages_distributions()
        file = _local_file(head, distributions)
        if file is not None:
            raise SpecError(
                f"{path}: {reference!r} comes from {file.name!r} on this machine, which the deployment does not have: "
                f"{_HOW}; or install it as a package, and name that in requirements"
            )


def _check_imports(names: _Names, function: ServingFunction) -> None:
    """Refuse code that imports files beside it: the deployment has only the one module."""
    if not function.spec.filename:
        return
    folder = Path(function.spec.filename).expanduser().resolve().parent
    required = [r.lower().replace("-", "_") for r in function.spec.requirements]
    for name in filter(None, names.imports):
        head = name.partition(".")[0]
        there = [p for p in (folder / f"{head}.py", folder / head / "__init__.py") if p.is_file()]
        if there and head != "servegraph" and not any(r.startswith(head.lower()) for r in required):
            raise SpecError(
                f"$.spec.source: the function's code imports {name!r}, a file beside it ({there[0].name}), which the "
                "deployment does not have: put its code into the function's file, or install it as a package and name "
                "that in requirements"
            )


def _references(step: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """The names of code in a graph, each with its place."""
    class_name, handler = step.get("class_name"), step.get("handler")
    if class_name and class_name not in ALIASES:
        yield at(path, "class_name"), class_name
    if handler and not class_name and not handler.strip().startswith("("):
        yield at(path, "handler"), handler
    for key, value in (step.get("class_args") or {}).items():
        if key.startswith("_") and isinstance(value, str) and not value.strip().startswith("("):
            yield at(at(path, "class_args"), key), value
    for part in ("steps", "routes"):
        for name, inner in (step.get(part) or {}).items():
            yield from _references(inner, at(at(path, part), name))


def _local_file(head: str, distributions: Mapping[str, Any]) -> Path | None:
    """The file of a module that is on this machine without being installed; None where it is, or is not here at all."""
    if head in distributions:
        return None
    module = sys.modules.get(head)
    try:
        spec = module.__spec__ if module is not None else importlib.util.find_spec(head)
    except (ImportError, ValueError):
        return None
    if module is None and spec is None:
        return None
    origin = getattr(module, "__file__", None) or (spec.origin if spec is not None else None)
    return Path(origin) if origin and Path(origin).exists() else Path(head)
