"""``servegraph validate``: what it finds and how it exits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from servegraph.cli.main import main

CODE = """
import servegraph

def clean(body):
    return body

fn = servegraph.new_function("checked")
graph = fn.set_topology("flow")
graph.to(name="first", handler={handler}).to(name="second", handler=clean){end}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "checked.py"


def validate(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["validate", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_graph_without_problems_exits_with_0(file: Path) -> None:
    file.write_text(CODE.format(handler="clean", end=".respond()"))
    assert validate(str(file)) == (0, "", "no problems found\n")
    assert validate(str(file), "--json") == (0, "[]\n", "")


def test_errors_are_listed_with_step_and_way_out_and_exit_with_1(file: Path) -> None:
    file.write_text(CODE.format(handler='"cleanx"', end=".respond()"))
    code, out, err = validate(str(file))
    assert code == 1
    assert "error: step 'first'" in out
    assert "'clean'" in out, "the near name"
    assert err.startswith("1 error")


def test_problems_as_json_hold_level_step_code_and_message(file: Path) -> None:
    file.write_text(CODE.format(handler='"cleanx"', end=".respond()"))
    code, out, _ = validate(str(file), "--json")
    problems = json.loads(out)
    assert code == 1
    assert [sorted(p) for p in problems] == [["code", "level", "message", "step"]]
    assert problems[0]["step"] == "first"


def test_exportable_also_tells_what_no_spec_can_hold(file: Path) -> None:
    file.write_text(CODE.format(handler="lambda body: body", end=".respond()"))
    assert validate(str(file))[0] == 0
    code, out, _ = validate(str(file), "--exportable")
    assert code == 1
    assert "lambda" in out


def test_spec_that_cannot_be_read_is_an_error_in_both_forms(tmp_path: Path) -> None:
    spec = tmp_path / "graph.json"
    spec.write_text('{"kind": "flow", "setps": {}}')
    code, _, err = validate(str(spec))
    assert code == 1
    assert err.startswith("Error: ")
    code, out, _ = validate(str(spec), "--json")
    assert code == 1
    assert json.loads(out)[0]["code"] == "unreadable"


def test_function_without_a_graph_is_told(file: Path) -> None:
    file.write_text("import servegraph\nfn = servegraph.new_function('bare')\n")
    code, _, err = validate(str(file))
    assert code == 1
    assert "has no graph" in err
