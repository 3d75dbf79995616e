"""Names every module and function in ``servegraph/`` that has grown too long to be read in one sitting.

Run by ``make check``; exits with 1 when there is one.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

MODULE_LINES = 550
FUNCTION_LINES = 70


def too_long(path: Path) -> Iterator[str]:
    """A line for the module, and one for each function in it, that is over its limit."""
    source = path.read_text(encoding="utf-8")
    lines = len(source.splitlines())
    if lines > MODULE_LINES:
        yield f"{path}:1: the module has {lines} lines; {MODULE_LINES} are the most"
    for node in ast.walk(ast.parse(source, filename=str(path))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES:
                yield f"{path}:{node.lineno}: {node.name} has {lines} lines; {FUNCTION_LINES} are the most"


def main(folder: str = "servegraph") -> int:
    """Write the places to standard output; 1 if there are any, 2 if there is nothing to look at."""
    paths = sorted(Path(folder).rglob("*.py"))
    if not paths:
        sys.stderr.write(f"{folder}: no Python files here\n")
        return 2
    found = [line for path in paths for line in too_long(path)]
    sys.stdout.writelines(f"{line}\n" for line in found)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
