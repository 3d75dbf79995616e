"""Lines of Python code that may hold a notebook's magics: which of them begin a statement, and their comments.

A magic (``%time``, ``!pip install``) is no Python, so neither ``ast`` nor ``tokenize`` reads a cell that has one. This
follows strings, brackets and continued lines just far enough to tell a magic from a ``%`` inside an expression or a
docstring, and a comment from a ``#`` inside a string.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Mark = Literal["ignore", "start-code", "end-code"]

_MARK = re.compile(r"#\s*(?:nuclio|mlrun|servegraph)\s*:\s*(ignore|start-code|end-code)\b[ \t]*([^\s#]*)")
_HELP = re.compile(r"\?{1,2}[\w.*%]+|[\w.*%]+\?{1,2}")
_TOKEN = re.compile(r"""'''|\"""|['"#\\]|[()\[\]{}]""")


@dataclass(slots=True)
class Line:
    """One line of code."""

    text: str
    number: int
    """Its number in its cell or file, from 1."""
    cell: int = 0
    """The number of its code cell, from 1; 0 in a file."""
    starts: bool = True
    """Whether a statement may begin here: it is in no string and no bracket, and continues no line."""
    magic: bool = False
    """Whether it is a magic, a shell command or a question for help."""
    mark: Mark | None = None
    """What a mark in its comment says."""
    mark_name: str = ""
    """The name behind the mark."""

    @property
    def indent(self) -> str:
        """The blanks it begins with."""
        return self.text[: len(self.text) - len(self.text.lstrip())]

    @property
    def alone(self) -> bool:
        """Whether a comment is all that the line holds."""
        return self.text.lstrip().startswith("#")

    @property
    def place(self) -> str:
        """Where the line is, for messages."""
        return f"code cell {self.cell}, line {self.number}" if self.cell else f"line {self.number}"


class _Scanner:
    """What is open at the start of a line: a string, brackets, a continued line."""

    def __init__(self) -> None:
        self.quote = ""
        self.depth = 0
        self.continued = False

    @property
    def free(self) -> bool:
        return not self.quote and self.depth == 0 and not self.continued

    def feed(self, text: str) -> int:
        """Go over a line; where its comment begins, or -1."""
        self.continued = False
        at = 0
        while found := _TOKEN.search(text, at):
            symbol, at = found.group(), found.end()
            if symbol == "\\":
                if at == len(text):
                    self.continued = True
                at += 1
            elif self.quote:
                if symbol.startswith(self.quote):
                    at = found.start() + len(self.quote)
                    self.quote = ""
                elif len(symbol) == 3:  # three quotes of which only one may count
                    at = found.start() + 1
            elif symbol == "#":
                return found.start()
            elif symbol[0] in "'\"":
                self.quote = symbol
            else:
                self.depth = max(0, self.depth + (1 if symbol in "([{" else -1))
        if len(self.quote) == 1 and not self.continued:  # a string on one line ends with it, or is an error
            self.quote = ""
        return -1


def scan(source: str, cell: int = 0) -> list[Line]:
    """The lines of a cell or file, with what they are."""
    lines: list[Line] = []
    scanner = _Scanner()
    goes_on = False  # a magic's line that ends with a backslash
    for number, text in enumerate(source.split("\n"), 1):
        line = Line(text, number, cell, scanner.free)
        lines.append(line)
        if goes_on or (scanner.free and cell and _is_magic(text)):
            line.magic = True
            marked = _MARK.search(text)
            line.mark = "ignore" if marked and marked.group(1) == "ignore" else None
            goes_on = text.endswith("\\")
            continue
        comment = scanner.feed(text)
        found = _MARK.match(text, comment) if comment >= 0 else None
        if found:
            line.mark, line.mark_name = found.group(1), found.group(2)  # type: ignore[assignment]
    return lines


def _is_magic(text: str) -> bool:
    bare = text.strip()
    return bare.startswith(("%", "!")) or ("?" in bare and _HELP.fullmatch(bare) is not None)


def joined(lines: Sequence[Line], start: int) -> tuple[str, int]:
    """A magic with the lines that continue it, as one text; and how many lines it has."""
    parts: list[str] = []
    for line in lines[start:]:
        text = line.text if not parts else line.text.strip()
        parts.append(text.removesuffix("\\").rstrip())
        if not line.text.endswith("\\"):
            break
    return " ".join(parts).strip(), len(parts)
