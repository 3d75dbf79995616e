"""From a file, notebook, module, spec or folder to the function it holds."""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.util
import re
import sys
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

from servegraph.errors import GraphError, NotFoundError, SpecError, closest
from servegraph.importing import import_object
from servegraph.runtimes.function import ServingFunction, normalize_name

SPEC_SUFFIXES = (".json", ".yaml", ".yml")
FOLDER_FILES = ("function.py", "function.yaml", "function.yml", "function.json", "function.ipynb")
"""What is looked for in a folder, in this order."""

_SUFFIXES = (".py", ".ipynb", *SPEC_SUFFIXES)
_loading = threading.RLock()
_executed: ContextVar[str | None] = ContextVar("_executed", default=None)


# -- modules -----------------------------------------------------------------------------------------------------------


def load_file(path: str | Path) -> ModuleType:
    """The module of a ``.py`` file, imported once per process.

    Its name in ``sys.modules`` is made from the file's path, so it is the same in each process and its classes can
    be pickled. Its folder is put on ``sys.path``, as Python does for a script, so that it can import its neighbours. A
    file that is imported already, be it as ``__main__``, is not imported again.

    Raises:
        GraphError: there is no such file.
        Exception: whatever the file's own code raises, as it is.
    """
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise GraphError(f"there is no file {str(path)!r}")
    with _loading:
        known = _imported(file)
        if known:
            return known[0]
        name = _module_name("file", file.stem, str(file))
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise GraphError(f"{str(path)!r} is not a Python file (.py)")
        folder = str(file.parent)
        if folder not in sys.path:
            sys.path.insert(0, folder)
        return _execute(importlib.util.module_from_spec(spec), spec.loader)


def load_source(name: str, source: str) -> ModuleType:
    """The module of a Python text, executed once per process; ``name`` is what tracebacks show.

    Raises:
        SyntaxError: the text is no Python.
        Exception: whatever the code raises, as it is.
    """
    with _loading:
        module_name = _module_name("source", name, source)
        if module_name in sys.modules:
            return sys.modules[module_name]
        loader = _TextLoader(source, f"<function {name}>")
        spec = importlib.util.spec_from_loader(module_name, loader)
        assert spec is not None
        return _execute(importlib.util.module_from_spec(spec), loader)


class _TextLoader(importlib.abc.InspectLoader):
    """Makes a module of a text, and shows the text to tracebacks and ``inspect``."""

    def __init__(self, source: str, shown_as: str) -> None:
        self._source = source
        self._shown_as = shown_as

    def get_source(self, fullname: str) -> str:
        return self._source

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self._source, self._shown_as)


def being_loaded() -> str | None:
    """The file (or the module, for a text) whose code runs at this moment because it is being loaded."""
    return _executed.get()


def _execute(module: ModuleType, loader: importlib.abc.Loader) -> ModuleType:
    sys.modules[module.__name__] = module
    token = _executed.set(vars(module).get("__file__") or module.__name__)
    try:
        loader.exec_module(module)
    except BaseException:
        sys.modules.pop(module.__name__, None)
        raise
    finally:
        _executed.reset(token)
    return module


def _imported(file: Path) -> list[ModuleType]:
    """The modules that were made from a file, under whatever names."""
    modules = [m for m in list(sys.modules.values()) if isinstance(m, ModuleType)]
    return [m for m in modules if vars(m).get("__file__") == str(file)]


def module_names(filename: str, source: str) -> list[str]:
    """The names under which the code of a file or text is imported in this process, if it is."""
    modules = _imported(Path(filename).expanduser().resolve()) if filename else []
    text = sys.modules.get(_module_name("source", "", source)) if source else None
    return [m.__name__ for m in (*modules, *filter(None, [text]))]


def _module_name(kind: str, name: str, identity: str) -> str:
    """A module name that tells what it is and stands for one text or path only."""
    digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    if kind == "source":  # the same text is the same module, whatever it is called
        return f"servegraph_source_{digest}"
    return f"servegraph_file_{re.sub(r'[^A-Za-z0-9_]', '_', name)}_{digest}"


# -- functions ---------------------------------------------------------------------------------------------------------


def find_functions(module: ModuleType) -> dict[str, ServingFunction]:
    """The functions that a module has at module level, by variable; one with several names has its first."""
    found: dict[str, ServingFunction] = {}
    for name, value in list(vars(module).items()):
        if isinstance(value, ServingFunction) and not any(value is known for known in found.values()):
            found[name] = value
    return found


def load_function(
    target: str,
    name: str | None = None,
    components: Mapping[str, Any] | None = None,
    *,
    code_needed: bool = True,
) -> ServingFunction:
    """The function that a command line or a worker's order names.

    Args:
        target: ``FILE.py`` or ``FILE.ipynb``, with ``:name`` where it holds several; ``module:attr``; a spec file
            (``.json``, ``.yaml``) with a function, a bare graph or a SeldonDeployment; or a folder that holds one of
            these as ``function.py``, ``function.yaml``, ….
        name: the function's variable or its name, where the target holds several; the name of a bare graph's function.
        components: local code for the nodes of a SeldonDeployment, by node, container or image.
        code_needed: whether the nodes of a SeldonDeployment must have code; without it a function can be drawn alone.

    Raises:
        NotFoundError: there is no such file, module or function, or there are several; the message says what there
            is and what to write.
        SpecError: the spec cannot be read, or components are given and it is no SeldonDeployment.
        Exception: whatever the user's own code raises, as it is.
    """
    path, part = _file_target(target)
    if path is None:
        _check_unused(components, target)
        return _from_module(target)
    if part and name and part != name:
        raise NotFoundError(f"{target!r} names the function {part!r}, and name= says {name!r}")
    wanted = part or name
    if path.is_dir():
        path = _in_folder(path)
    if path.suffix not in SPEC_SUFFIXES:
        _check_unused(components, target)
    if path.suffix == ".py":
        function = _pick(load_file(path), wanted, str(path))
    elif path.suffix == ".ipynb":
        function = _from_notebook(path, wanted)
    elif path.suffix in SPEC_SUFFIXES:
        function = _from_spec(path, wanted, components, code_needed)
    else:
        raise NotFoundError(f"{str(path)!r} holds no function: give one of {', '.join(_SUFFIXES)}, or a folder")
    return _settled(function, path.resolve())


def _file_target(target: str) -> tuple[Path | None, str | None]:
    """The path in a target and the name behind it; no path for ``module:attr``.

    Raises:
        NotFoundError: it means a file, and there is none.
    """
    path = Path(target).expanduser()
    if path.exists():
        return path, None
    file, colon, part = target.rpartition(":")
    if colon and Path(file).expanduser().exists():
        if not part:
            raise NotFoundError(f"{target!r}: write the function's name behind the colon")
        return Path(file).expanduser(), part
    file = file if colon else target
    if "/" in file or Path(file).suffix in _SUFFIXES:
        missing = Path(file).expanduser()
        there = [p.name for p in missing.parent.iterdir() if _may_hold(p)] if missing.parent.is_dir() else []
        if not there:
            raise NotFoundError(
                f"there is no file {file!r}, and {str(missing.parent)!r} holds none that could be meant"
            )
        raise NotFoundError(f"there is no file {file!r}; in {str(missing.parent)!r}: {closest(missing.name, there)}")
    return None, None


def _may_hold(path: Path) -> bool:
    return path.suffix in _SUFFIXES and not path.name.startswith(".")


def _in_folder(folder: Path) -> Path:
    for name in FOLDER_FILES:
        if (folder / name).is_file():
            return folder / name
    raise NotFoundError(f"the folder {str(folder)!r} holds no function: it needs one of {', '.join(FOLDER_FILES)}")


def _from_module(target: str) -> ServingFunction:
    if ":" not in target:
        raise NotFoundError(
            f"{target!r} is neither a file nor a folder: write FILE.py, FILE.py:name, FILE.ipynb, module:name, "
            "a spec (.json, .yaml) or a folder"
        )
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    return _made(import_object(target), target)


def _from_notebook(path: Path, wanted: str | None) -> ServingFunction:
    from servegraph.runtimes.code import read_code

    code = read_code(str(path))
    function = _pick(load_source(code.name, code.source), wanted, str(path))
    function.spec.source = function.spec.source or code.source
    return function


def _check_unused(components: Mapping[str, Any] | None, target: str) -> None:
    """Raise `SpecError` for components of what has no nodes that they could be the code of."""
    for name in components or {}:
        raise SpecError(f"component {name!r} is given, and {target!r} is no SeldonDeployment: it has no such nodes")


def _from_spec(
    path: Path, wanted: str | None, components: Mapping[str, Any] | None, code_needed: bool
) -> ServingFunction:
    from servegraph.runtimes.seldon.deployment import function_in_file
    from servegraph.runtimes.serving_spec import function_from_text

    deployed = function_in_file(path, wanted, components, code_needed=code_needed)
    if deployed is not None:
        return deployed
    _check_unused(components, str(path))
    stem = path.resolve().parent.name if path.stem == "function" else path.stem
    try:
        function = function_from_text(path.read_bytes(), wanted or stem, is_json=path.suffix == ".json")
    except SpecError as exc:
        raise SpecError(f"{path}: {exc.message}") from exc
    if wanted and function.name != normalize_name(wanted):
        raise NotFoundError(f"{str(path)!r} holds the function {function.name!r}, not {wanted!r}")
    return function


def _pick(module: ModuleType, wanted: str | None, place: str) -> ServingFunction:
    """The one function of a module, or the one that is asked for by variable or by name."""
    functions = find_functions(module)
    if wanted is not None:
        named = [f for v, f in functions.items() if wanted in (v, f.name)]
        if wanted in functions:
            return functions[wanted]
        if wanted in vars(module):
            return _made(vars(module)[wanted], f"{place}:{wanted}")
        if len(named) == 1:
            return named[0]
        raise NotFoundError(f"{place!r} has no function {wanted!r}; {closest(wanted, functions)}")
    if not functions:
        raise NotFoundError(
            f"{place!r} defines no function: make one at module level (fn = servegraph.new_function(...)), or "
            f"write {place}:name for something that gives one when it is called"
        )
    if len(functions) > 1:
        choices = ", ".join(f"{place}:{v}" for v in functions)
        raise NotFoundError(f"{place!r} defines {len(functions)} functions: say which one: {choices}")
    return next(iter(functions.values()))


def _made(value: Any, place: str) -> ServingFunction:
    """A function, or what a callable gives."""
    if callable(value) and not isinstance(value, ServingFunction):
        value = value()
    if not isinstance(value, ServingFunction):
        raise NotFoundError(f"{place!r} is {type(value).__name__}, not a function (ServingFunction) or a maker of one")
    return value


def _settled(function: ServingFunction, path: Path) -> ServingFunction:
    """Tell a function where its code and its files are, unless it knows."""
    spec = function.spec
    if not spec.filename and path.suffix in (".py", ".ipynb"):
        spec.filename = str(path)
    if not spec.workdir:
        spec.workdir = str(path.parent)
    return function
