"""What a source folder says that it needs: a requirements file, a Python project, or a conda environment."""

from __future__ import annotations

import ast
import configparser
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from servegraph.errors import SettingsError
from servegraph.graph.spec_text import write_yaml
from servegraph.runtimes.packaging.requirements import (
    REPLACED_NOTE,
    Requirements,
    read_requirements,
    requirements_of,
)
from servegraph.serving.safe_yaml import read_yaml

REQUIREMENTS: Final = "requirements.txt"
PROJECT_FILES: Final = ("setup.py", "setup.cfg", "pyproject.toml")
CONDA_FILES: Final = ("environment.yml", "environment.yaml")
CONDA_FILE: Final = "environment.yml"
"""The name that a conda file has in the build context."""


@dataclass(slots=True)
class Dependencies:
    """How the packages of an image are installed."""

    kind: str
    """``requirements``, ``project``, ``conda`` or ``none``."""
    origin: str = ""
    """The file that said so, by its name in the source folder."""
    requirements: Requirements = field(default_factory=Requirements)
    """What is installed before the code, or with it."""
    complete: bool = True
    """Of a project: ``requirements`` is all that it asks for."""
    conda: bytes = b""
    """The conda environment, as the image gets it."""
    notes: list[str] = field(default_factory=list)
    """What was found and is not used."""
    warnings: list[str] = field(default_factory=list)


def find_dependencies(root: Path, keep_seldon: bool = False) -> Dependencies:
    """What a source folder needs, from the first there is: requirements.txt, a Python project, a conda environment.

    Raises:
        SettingsError: the file cannot be read.
    """
    projects = [name for name in PROJECT_FILES if (root / name).is_file() and _is_project(root / name)]
    condas = [name for name in CONDA_FILES if (root / name).is_file()]
    if (root / REQUIREMENTS).is_file():
        found = Dependencies("requirements", REQUIREMENTS, read_requirements(root, REQUIREMENTS, keep_seldon))
        unused = [*projects, *condas]
    elif projects:
        found = _project(root, projects, keep_seldon)
        unused = condas
    elif condas:
        found = _conda(root / condas[0], keep_seldon)
        unused = condas[1:]
    else:
        return Dependencies("none", notes=[f"no {REQUIREMENTS}, {PROJECT_FILES[0]} or {CONDA_FILE}: servegraph only"])
    found.notes = [f"{name} is not installed from: {found.origin} comes first" for name in unused]
    found.warnings += _about_extras(found.requirements)
    return found


def _about_extras(requirements: Requirements) -> list[str]:
    return [
        f"seldon-core[{extra}] brought further packages: name those that the component uses in {REQUIREMENTS}"
        for extra in dict.fromkeys(requirements.extras)
    ]


# -- Python projects ---------------------------------------------------------------------------------------------------


def _is_project(path: Path) -> bool:
    """Whether a file describes a package, and not only the settings of tools."""
    if path.suffix == ".toml":
        return bool(_toml(path).keys() & {"project", "build-system"})
    return path.suffix == ".py"


def _project(root: Path, files: list[str], keep_seldon: bool) -> Dependencies:
    """A project: its dependencies where they can be read without running it, else the project as a whole."""
    lines: list[str] | None = None
    origin = files[0]
    if "pyproject.toml" in files:
        lines = _from_toml(_toml(root / "pyproject.toml"))
        origin = "pyproject.toml" if lines is not None else origin
    if lines is None and "setup.py" in files:
        lines = _from_setup(root)
    if lines is None:
        warning = (
            f"what {origin} needs is known only when it runs: should it name seldon-core, the image removes that again"
        )
        kept = Requirements(real_seldon=keep_seldon)
        return Dependencies("project", origin, kept, complete=False, warnings=[] if keep_seldon else [warning])
    requirements = requirements_of(lines, REQUIREMENTS, origin, keep_seldon)
    return Dependencies("project", origin, requirements)


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        raise SettingsError(f"{path} cannot be read: {exc}") from exc


def _from_toml(document: dict[str, Any]) -> list[str] | None:
    project = document.get("project")
    if not isinstance(project, dict) or "dependencies" in project.get("dynamic", []):
        return None
    lines = project.get("dependencies", [])
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise SettingsError("pyproject.toml: project.dependencies is no list of texts")
    return lines


def _from_setup(root: Path) -> list[str] | None:
    """``install_requires`` of a ``setup.py``, where it stands there (or in ``setup.cfg``) as a plain list."""
    path = root / "setup.py"
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (OSError, SyntaxError, ValueError, RecursionError) as exc:
        raise SettingsError(f"{path} cannot be read: {exc}") from exc
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and _called(n) == "setup"]
    if len(calls) != 1 or any(keyword.arg is None for keyword in calls[0].keywords):
        return None
    keywords = {k.arg: k.value for k in calls[0].keywords}
    if "install_requires" not in keywords:
        return _from_cfg(root / "setup.cfg")
    value = keywords["install_requires"]
    if isinstance(value, ast.Name):
        value = _assigned(tree, value.id) or value
    try:
        lines = ast.literal_eval(value)
    except (ValueError, TypeError, RecursionError):
        return None
    lines = [lines] if isinstance(lines, str) else lines
    is_plain = isinstance(lines, (list, tuple)) and all(isinstance(line, str) for line in lines)
    return list(lines) if is_plain else None


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def _assigned(tree: ast.Module, name: str) -> ast.expr | None:
    """What a name is set to, if that happens once and nothing else can change it."""
    stored = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == name]
    if len(stored) != 2:  # set once, read once
        return None
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and node.targets[0] in stored:
            return node.value
    return None


def _from_cfg(path: Path) -> list[str] | None:
    if not path.is_file():
        return []
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, configparser.Error) as exc:
        raise SettingsError(f"{path} cannot be read: {exc}") from exc
    text = parser.get("options", "install_requires", fallback="")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    return None if any(line.startswith("file:") for line in lines) else lines


# -- conda -------------------------------------------------------------------------------------------------------------


def _conda(path: Path, keep_seldon: bool) -> Dependencies:
    """A conda environment, without seldon-core."""
    data = path.read_bytes()
    try:
        document = read_yaml(data)
    except ValueError as exc:
        raise SettingsError(f"{path}: {exc}") from exc
    wanted = document.get("dependencies", []) if isinstance(document, dict) else None
    if not isinstance(wanted, list):
        raise SettingsError(f"{path} is no conda environment: it needs a list of dependencies")
    found = Dependencies("conda", path.name, conda=data)
    pip_lines = [line for entry in wanted if isinstance(entry, dict) for line in entry.get("pip") or []]
    if not all(isinstance(line, str) for line in [*pip_lines, *(e for e in wanted if not isinstance(e, dict))]):
        raise SettingsError(f"{path}: a dependency is a text, or 'pip' with a list of texts")
    requirements = requirements_of(pip_lines, REQUIREMENTS, path.name, keep_seldon)
    packages = [entry for entry in wanted if isinstance(entry, str)]
    for name in ("python", "pip"):
        if not any(_conda_name(package) == name for package in packages):
            found.warnings.append(f"{path} does not name {name}, and servegraph is installed with it: add it")
    dropped = [p for p in packages if _conda_name(p) in ("seldon-core", "seldon_core")]
    requirements.files.clear()  # pip's part is installed by conda
    found.requirements = requirements
    if keep_seldon:
        requirements.real_seldon = requirements.real_seldon or bool(dropped)
    elif dropped or requirements.replaced:
        requirements.replaced += [f"{path}: {package}" for package in dropped]
        found.conda = _without_seldon(document, dropped).encode()
    return found


def _conda_name(package: str) -> str:
    """The name in a conda dependency such as ``conda-forge::numpy >=1.26``."""
    name = package.rpartition("::")[2].strip()
    for mark in " =<>!~[;":
        name = name.partition(mark)[0]
    return name.lower()


def _without_seldon(document: dict[str, Any], dropped: list[str]) -> str:
    kept: list[Any] = []
    removed = list(dropped)
    for entry in document["dependencies"]:
        if isinstance(entry, dict) and entry.get("pip"):
            lines = [line for line in entry["pip"] if not requirements_of([line], "", "").replaced]
            removed += [line for line in entry["pip"] if line not in lines]
            entry = {**entry, "pip": lines} if lines else {k: v for k, v in entry.items() if k != "pip"}
        if entry and entry not in dropped:
            kept.append(entry)
    note = "".join(f"# {line}\n" for line in [REPLACED_NOTE, *removed])
    return note + write_yaml({**document, "dependencies": kept})
