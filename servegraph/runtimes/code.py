"""The code of a function from a ``.py`` file or a notebook, without what is only for working on it.

Marks are comments: ``# servegraph: ignore``, ``# servegraph: start-code [name]``, ``# servegraph: end-code [name]``,
with ``nuclio:`` and ``mlrun:`` meaning the same. In a notebook ``ignore`` leaves out its cell. In a file it leaves out
the statement it stands at or above, or the cell where the file has cells (``# %%``).
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from servegraph import jsoncodec
from servegraph.errors import SettingsError, SpecError, closest
from servegraph.runtimes.code_lines import Line, joined, scan
from servegraph.runtimes.code_magics import PYTHON_CELLS, Build

_IGNORE_TAGS: Final = frozenset(("nuclio-ignore", "mlrun-ignore", "servegraph-ignore"))
_CELL_MAGIC = re.compile(r"%%(\w+)")
_PERCENT_CELL = re.compile(r"^#[ \t]*%%", re.MULTILINE)
_MAX_BYTES = 64 * 1024**2


@dataclass(frozen=True, slots=True)
class Code:
    """The code of a function."""

    name: str
    """The name given, or the file's."""
    source: str
    """The Python text."""
    filename: str
    """The file it is from, as an absolute path."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables of a deployment, from ``%nuclio env``."""
    commands: list[str] = field(default_factory=list)
    """Commands that build its image, from ``%nuclio cmd``."""
    config: dict[str, Any] = field(default_factory=dict)
    """Fields of a Nuclio function configuration, from ``%nuclio config``, nested."""


def read_code(filename: str, name: str = "") -> Code:
    """The code of a function in a ``.py`` file or a notebook.

    Args:
        filename: the file.
        name: the function's name: of the sections between ``start-code`` and ``end-code`` those without a name and
            those with this one count. The file's name where none is given.

    Raises:
        SettingsError: there is no such file, or no file is named.
        SpecError: the file cannot be read, a mark is misplaced, or what is left is no Python; the message names cell
            and line.
    """
    if not filename:
        raise SettingsError(
            "code_to_function() needs the file that holds the code: in a notebook give its own name, "
            'code_to_function(filename="x.ipynb"); it has to be saved first'
        )
    path = Path(filename).expanduser().resolve()
    if path.suffix not in (".py", ".ipynb"):
        raise SettingsError(f"{filename!r} is neither a Python file (.py) nor a notebook (.ipynb)")
    if not path.is_file():
        there = [p.name for p in path.parent.glob("*") if p.suffix == path.suffix] if path.parent.is_dir() else []
        raise SettingsError(f"there is no file {filename!r}; in {str(path.parent)!r}: {closest(path.name, there)}")
    name = name or path.stem
    build = Build()
    try:
        if path.suffix == ".py":
            source = _file_code(_text(path), name)
        else:
            source = _notebook_code(_cells(_text(path)), name, build)
        _check(source, [])
    except SpecError as exc:
        raise SpecError(f"{path.name}, {exc.message}") from exc
    return Code(name, source, str(path), build.env, build.commands, build.config)


def _text(path: Path) -> str:
    if path.stat().st_size > _MAX_BYTES:
        raise SpecError(f"it is larger than {_MAX_BYTES // 1024**2} MiB")
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as exc:
        raise SpecError(f"byte {exc.start}: it is no UTF-8 text") from exc


# -- notebooks ---------------------------------------------------------------------------------------------------------


def _cells(text: str) -> list[tuple[str, set[str]]]:
    """The source and tags of each code cell."""
    try:
        notebook = jsoncodec.loads(text)
    except jsoncodec.JSONDecodeError as exc:
        raise SpecError(f"line {exc.lineno}: it is no notebook: {exc.msg}") from exc
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise SpecError("cells: it is no notebook of version 4 (save it with a current Jupyter)")
    found: list[tuple[str, set[str]]] = []
    for cell in cells:
        if not isinstance(cell, dict) or cell.get("cell_type") != "code":
            continue
        source = cell.get("source") or ""
        metadata = cell.get("metadata")
        tags = metadata.get("tags") if isinstance(metadata, dict) else None
        text = source if isinstance(source, str) else "".join(map(str, source))
        found.append((text.replace("\r\n", "\n"), {t for t in tags or () if isinstance(t, str)}))
    return found


def _notebook_code(cells: Iterable[tuple[str, set[str]]], name: str, build: Build) -> str:
    lines: list[Line] = []
    for number, (source, tags) in enumerate(cells, 1):
        scanned = _cell_lines(source, number)
        if not tags & _IGNORE_TAGS and not any(line.mark == "ignore" for line in scanned):
            lines.extend(scanned)
    kept = _sections(lines, name)
    parts: list[str] = []
    for number in dict.fromkeys(line.cell for line in kept):
        cell = [line for line in kept if line.cell == number]
        text = _without_magics(cell, build)
        _check(text, cell)
        if text.strip():
            parts.append(text.strip("\n"))
    return "\n\n".join(parts) + "\n" if parts else ""


def _cell_lines(source: str, number: int) -> list[Line]:
    """The lines of a cell; one with a cell magic is a magic as a whole, unless it holds Python."""
    stripped = source.lstrip()
    found = _CELL_MAGIC.match(stripped)
    if found is None or found.group(1) in PYTHON_CELLS:
        return scan(source, number)
    lines = [Line(text, i, number, magic=True) for i, text in enumerate(source.split("\n"), 1)]
    # A cell that is ignored says so in a comment, of whatever language.
    for line, plain in zip(lines, scan("\n".join(t if t.lstrip().startswith("#") else "" for t in source.split("\n"))),
                           strict=True):  # fmt: skip
        line.mark, line.mark_name = plain.mark, plain.mark_name
    return lines


def _without_magics(lines: Sequence[Line], build: Build) -> str:
    """The Python of a cell: a magic in a block becomes ``pass``, any other an empty line."""
    out: list[str] = []
    index = 0
    while index < len(lines):
        line = lines[index]
        if not line.magic:
            out.append(line.text)
            index += 1
            continue
        found = _CELL_MAGIC.match(line.text.strip())
        if found and found.group(1) not in PYTHON_CELLS:
            build.apply("\n".join(each.text for each in lines[index:]), line.place)
            break
        text, count = joined(lines, index)
        build.apply(text, line.place)
        out.extend([f"{line.indent}pass" if line.indent else "", *[""] * (count - 1)])
        index += count
    return "\n".join(out)


# -- sections ----------------------------------------------------------------------------------------------------------


def _sections(lines: Sequence[Line], name: str) -> list[Line]:
    """The lines between the marks ``start-code`` and ``end-code``; all where there are none."""
    marks = [line for line in lines if line.mark in ("start-code", "end-code")]
    if not marks:
        return list(lines)
    kept: list[Line] = []
    found: list[str] = []
    taken = False
    section: str | None = "" if marks[0].mark == "end-code" else None  # an end without a start is for all before it
    for line in lines:
        if line.mark == "start-code":
            if section is not None:
                raise SpecError(f"{line.place}: start-code, but the one before it has no end-code yet")
            section = line.mark_name
            found.append(section)
        elif line.mark == "end-code":
            if section is None or (line.mark_name and line.mark_name != section):
                raise SpecError(f"{line.place}: end-code {line.mark_name}".rstrip() + " without its start-code")
            section = None
        elif section is not None and (not section or _same_name(section, name)):
            kept.append(line)
            taken = True
    if not taken and any(found):
        raise SpecError(f"start-code: there is no section for {name!r}; {closest(name, filter(None, found))}")
    return kept


def _same_name(one: str, other: str) -> bool:
    return one.lower().replace("_", "-") == other.lower().replace("_", "-")


# -- files -------------------------------------------------------------------------------------------------------------


def _file_code(text: str, name: str) -> str:
    """The code of a ``.py`` file; what is left out becomes empty lines, so that line numbers stay."""
    _check(text, [])
    lines = scan(text)
    dropped = _ignored_cells(lines) if _PERCENT_CELL.search(text) else {}
    if not dropped and any(line.mark == "ignore" for line in lines):
        dropped = _ignored_statements(text, lines)
    kept = {line.number for line in _sections([x for x in lines if dropped.get(x.number) is None], name)}
    out = [dropped.get(x.number) or (x.text if x.number in kept else "") for x in lines]
    return "\n".join(out)


def _ignored_cells(lines: Sequence[Line]) -> dict[int, str]:
    """What stands in place of the lines of cells (``# %%``) that are marked."""
    cells: list[list[Line]] = [[]]
    for line in lines:
        if line.starts and _PERCENT_CELL.match(line.text):
            cells.append([])
        cells[-1].append(line)
    return {line.number: "" for cell in cells if any(x.mark == "ignore" for x in cell) for line in cell}


def _ignored_statements(text: str, lines: Sequence[Line]) -> dict[int, str]:
    """What stands in place of the lines of statements that are marked."""
    statements = sorted(_statements(ast.parse(text)), key=lambda s: (s[0], -s[1]))
    dropped: dict[int, str] = {}
    for line in lines:
        if line.mark != "ignore":
            continue
        at = [s for s in statements if (s[0] > line.number if line.alone else s[0] <= line.number <= s[1])]
        if not at:
            raise SpecError(f"{line.place}: there is no statement for the mark to ignore")
        # Above a statement the next one is meant; at one, that which begins on the line, or the innermost.
        first, last, indent = at[0] if line.alone else next((s for s in at if s[0] == line.number), at[-1])
        dropped.update(dict.fromkeys(range(first, last + 1), ""))
        dropped[first] = f"{' ' * indent}pass" if indent else ""
    return dropped


def _statements(tree: ast.AST) -> Iterable[tuple[int, int, int]]:
    """First line, last line and indent of each statement."""
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            decorators = getattr(node, "decorator_list", [])
            first = min([node.lineno, *(d.lineno for d in decorators)])
            yield first, node.end_lineno or node.lineno, node.col_offset


def _check(source: str, cell: Sequence[Line]) -> None:
    """Raise `SpecError`, naming the cell and line, where this is no Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, "<code>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as exc:
        number = getattr(exc, "lineno", None) or 1
        place = cell[min(number, len(cell)) - 1].place if cell else f"line {number}"
        shown = source.split("\n")[number - 1].strip() if number <= source.count("\n") + 1 else ""
        hint = "; mark the cell with '# servegraph: ignore' if it is not for the function" if cell else ""
        raise SpecError(
            f"{place}: this is no Python for a module: {getattr(exc, 'msg', exc)}: {shown!r}{hint}"
        ) from exc
