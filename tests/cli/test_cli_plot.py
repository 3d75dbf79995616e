"""``servegraph plot``: printed and written drawings."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from servegraph.cli.main import main

CODE = """
import servegraph

def clean(body):
    return body

fn = servegraph.new_function("drawn")
graph = fn.set_topology("flow")
graph.to(name="clean", handler=clean).to(name="answer", handler=clean).respond()
"""


@pytest.fixture
def target(tmp_path: Path) -> str:
    file = tmp_path / "drawn.py"
    file.write_text(CODE)
    return str(file)


def plot(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["plot", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_drawing_is_printed_as_mermaid_or_dot(target: str) -> None:
    code, out, _ = plot(target)
    assert code == 0
    assert out.startswith("flowchart")
    assert '"clean"' in out
    assert plot(target, "--format", "mermaid")[1] == out
    assert plot(target, "--format", "markdown")[1] == f"```mermaid\n{out}```\n"
    assert plot(target, "--format", "dot")[1].startswith("digraph")


@pytest.mark.parametrize(("name", "start"), [("g.mmd", "flowchart"), ("g.dot", "digraph"), ("g.md", "```mermaid")])
def test_ending_of_the_file_tells_the_format(target: str, tmp_path: Path, name: str, start: str) -> None:
    file = tmp_path / name
    code, out, err = plot(target, "-o", str(file))
    assert (code, out, err) == (0, "", f"wrote {file}\n")
    assert file.read_text().startswith(start)


def test_wrong_formats_are_refused(target: str, tmp_path: Path) -> None:
    code, _, err = plot(target, "-o", str(tmp_path / "g.xyz"))
    assert code == 1
    assert "'.xyz' is no format" in err
    assert not (tmp_path / "g.xyz").exists()
    assert plot(target, "--format", "png")[0] == 2
