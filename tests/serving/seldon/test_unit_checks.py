"""What is found wrong in a node of a deployment before it is made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from servegraph.errors import SpecError
from servegraph.runtimes.seldon.deployment import function_from_text
from servegraph.serving.seldon.unit_checks import unit_problems

HEAD = """apiVersion: machinelearning.seldon.io/v1
kind: SeldonDeployment
metadata: {name: flowers}
spec:
  predictors:
"""
CODE = """
class Plain:
    def __init__(self, by: int = 1): ...
class Needs:
    def __init__(self, by: int): ...
class Any:
    def __init__(self, **kwargs): ...
made = Plain()
def maker(by): ...
"""
BY = [{"name": "by", "value": "1", "type": "INT"}]
PUSH = [{"name": "push_frequency", "value": "1", "type": "INT"}]
OTHER = [{"name": "buy", "value": "1", "type": "INT"}]


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "unit_checked.py").write_text(CODE)
    (tmp_path / "breaks.py").write_text("raise RuntimeError('no GPU')")
    return str(tmp_path)


@pytest.mark.parametrize(
    ("component", "parameters"),
    [
        ("unit_checked:Plain", None),
        ("unit_checked.Plain", BY),
        ("unit_checked.py:Needs", BY),
        ("unit_checked:Any", OTHER),
        ("unit_checked:Plain", PUSH),
        ("unit_checked:made", None),
        ("unit_checked:maker", BY),
        (int, None),
        (None, OTHER),
    ],
)
def test_good_arguments_have_no_problem(component: Any, parameters: Any, folder: str) -> None:
    assert list(unit_problems({"component": component, "parameters": parameters}, folder)) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ({"component": "nowhere:Plain"}, "unknown-code", "nowhere"),
        ({"component": "nowhere.Plain"}, "unknown-code", "there is no module 'nowhere'"),
        ({"component": "nowhere.py"}, "unknown-code", "there is no file"),
        ({"component": "unit_checked.Plan"}, "unknown-code", "has no 'Plan'; did you mean 'Plain'"),
        ({"component": "breaks.py:X"}, "unknown-code", "importing 'breaks.py:X' failed: RuntimeError: no GPU"),
        ({"unit": {"implementation": "NO_SERVER"}}, "unknown-code", "NO_SERVER"),
        (
            {"component": "unit_checked:Plain", "parameters": OTHER},
            "bad-argument",
            "Plain cannot be made with parameters buy: got an unexpected keyword argument 'buy'",
        ),
        (
            {"component": "unit_checked:Needs"},
            "bad-argument",
            "with parameters none: missing a required argument: 'by'",
        ),
        ({"component": int, "parameters": [{"name": "x", "value": "y", "type": "INT"}]}, "bad-argument", "is no INT"),
        ({"component": int, "parameters": "x"}, "bad-argument", "parameters must be a list"),
        ({"unit": {"typ": "MODEL"}}, "bad-argument", "unit has no 'typ'; did you mean 'type'"),
    ],
)
def test_problem_is_told_with_its_kind(arguments: Any, code: str, message: str, folder: str) -> None:
    ((found, text),) = unit_problems(arguments, folder)
    assert (found, message in text) == (code, True), text


def test_module_that_reads_the_variables_of_its_node_is_imported_with_them(folder: str) -> None:
    (Path(folder) / "reads.py").write_text("import os\nclass X:\n    at = os.environ['UNIT_CHECKED_PLACE']\n")
    unit = {"name": "m", "deployment": "d", "env": {"UNIT_CHECKED_PLACE": "here"}}
    assert list(unit_problems({"component": "reads.py:X", "unit": unit}, folder)) == []
    assert "UNIT_CHECKED_PLACE" not in os.environ


def test_nodes_that_run_elsewhere_or_are_built_in_need_no_code() -> None:
    far = {"endpoint": {"host": "h", "port": 1, "type": "REST"}}
    for unit in (far, {"implementation": "SIMPLE_MODEL"}):
        assert list(unit_problems({"component": "nowhere:X", "unit": unit})) == []


def test_validation_of_a_deployment_tells_the_node(folder: str) -> None:
    graph = "{name: t, type: TRANSFORMER, children: [{name: m, parameters: [{name: buy, value: '1', type: INT}]}]}"
    text = f"{HEAD}  - {{name: main, graph: {graph}}}\n"
    components = {"t": "unit_checked:Plan", "m": "unit_checked.py:Plain"}
    problems = function_from_text(text, folder, components=components).validate()
    assert [(p.level, p.step, p.code) for p in problems] == [
        ("error", "deployment/main/t", "unknown-code"),
        ("error", "deployment/main/t/m", "bad-argument"),
    ]


def read(predictor: str) -> None:
    function_from_text(f"{HEAD}  - {{name: main, {predictor}}}\n", components={"m": int})


@pytest.mark.parametrize(
    ("kind", "value"), [("INT", "abc"), ("INT", "1.5"), ("FLOAT", "x"), ("DOUBLE", "''"), ("BOOL", "perhaps")]
)
def test_parameter_that_is_not_of_its_type_is_refused_with_its_place(kind: str, value: str) -> None:
    with pytest.raises(SpecError) as failed:
        read(f"graph: {{name: m, parameters: [{{name: p, value: {value}, type: {kind}}}]}}")
    assert "spec.predictors[0].graph.parameters[0].value: the parameter 'p' is of type" in str(failed.value)
    assert f"{kind}, and '{value.strip(chr(39))}' is none" in str(failed.value)


def test_annotation_of_code_for_no_node_is_refused() -> None:
    with pytest.raises(SpecError, match=r"annotation servegraph.io/class.zzz: there is no node 'zzz'; .*'?m'?"):
        read("annotations: {servegraph.io/class.zzz: 'a:B'}, graph: {name: m}")


def test_unknown_type_needs_methods_where_it_is_written() -> None:
    with pytest.raises(SpecError, match=r"graph\.type: node 'm' has no type: UNKNOWN_TYPE goes with methods"):
        read("graph: {name: m, type: UNKNOWN_TYPE}")
    read("graph: {name: m, type: UNKNOWN_TYPE, methods: [TRANSFORM_INPUT]}")
    read("graph: {name: m}")
