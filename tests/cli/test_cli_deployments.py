"""The commands with a SeldonDeployment as their target."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from served_command import Served, run

from servegraph.cli.main import main

HEAD = """apiVersion: machinelearning.seldon.io/v1
kind: SeldonDeployment
metadata: {name: flowers, namespace: garden}
spec:
  predictors:
"""


def deployment(folder: Path, graph: str) -> Path:
    """The file of a deployment with one predictor."""
    file = folder / "deployment.yaml"
    file.write_text(f"{HEAD}  - {{name: main, graph: {graph}}}\n")
    return file


# -- serve -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_serve_with_leave_for_pickles_loads_them_in_each_worker(tmp_path: Path) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    import joblib

    model = linear.LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])
    (tmp_path / "model").mkdir()
    joblib.dump(model, tmp_path / "model" / "model.joblib")
    parameters = "parameters: [{name: method, value: predict, type: STRING}]"
    file = deployment(tmp_path, f"{{name: m, implementation: SKLEARN_SERVER, modelUri: model, {parameters}}}")
    refused = run("serve", str(file), "--http-port", "0", "--no-allow-pickle")
    assert refused.returncode != 0
    assert "--allow-pickle or SERVEGRAPH_ALLOW_PICKLE=1" in refused.stderr
    with Served(file, "--allow-pickle", "--workers", "2") as served:
        assert re.search(r"ready: 2 worker", served.log())
        status, answer = served.ask("/api/v1.0/predictions", {"data": {"ndarray": [[3.0]]}})
    assert (status, answer["data"]["ndarray"]) == (200, pytest.approx([6.0]))


@pytest.mark.slow
def test_serve_offers_a_prediction_that_works_and_shows_the_outer_path(tmp_path: Path) -> None:
    with Served(deployment(tmp_path, "{name: m, implementation: SIMPLE_MODEL}")) as served:
        log = served.log()
        assert re.search(r"predictor\s+main: m\n", log)
        curl = re.search(r"try\s+(curl .*)", log)
        also = re.search(r"also at\s+(\S+)", log)
        assert curl is not None
        assert also is not None
        assert also.group(1) == f"http://127.0.0.1:{served.port}/seldon/garden/flowers/api/v1.0/predictions"
        line = shlex.split(curl.group(1))
        for place in (line[2], also.group(1)):
            answer = subprocess.run([*line[:2], place, *line[3:]], capture_output=True, check=True)
            assert json.loads(answer.stdout)["meta"]["requestPath"] == {"m": "SIMPLE_MODEL"}
        assert "/seldon/garden/flowers/api/v1.0/predictions" in served.ask("/openapi.json")[1]["paths"]
        assert "/seldon/garden/flowers/api/v1.0/predictions" in served.ask("/docs")[1]


# -- validate, plot, invoke --------------------------------------------------------------------------------------------

TREE = """{name: scale, type: TRANSFORMER, children: [{name: ab, implementation: RANDOM_ABTEST, children: [
  {name: a, type: MODEL},
  {name: both, type: COMBINER, children: [{name: b}, {name: c, methods: [TRANSFORM_INPUT]}]}]}]}"""
CODE = """
class Any:
    def __init__(self, by: int = 1):
        self.by = by
    def transform_input(self, X, names):
        return X
    def predict(self, X, names):
        return X * self.by
    def aggregate(self, features, names):
        return features[0]
"""
NODES = ("scale", "a", "both", "b", "c")


def components(code: str = "parts:Any", *nodes: str) -> list[str]:
    return [word for node in nodes or NODES for word in ("--component", f"{node}={code}")]


def command(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, list(arguments))
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def tree(tmp_path: Path) -> str:
    (tmp_path / "parts.py").write_text(CODE)
    return str(deployment(tmp_path, TREE))


@pytest.mark.parametrize("words", [["validate"], ["invoke"], ["serve", "--http-port", "0"]])
def test_nodes_without_code_are_told_all_at_once(words: list[str], tree: str, capfd: Any) -> None:
    code, _, err = command(words[0], tree, *words[1:])
    err += capfd.readouterr().err  # serve reads the deployment in a process of its own
    assert code == 1
    assert "no code here for 5 nodes, 'scale', 'a', 'both', 'b', 'c': give --component scale=module:Class" in err
    assert "--component c=module:Class, write them into components.yaml" in err


def test_wrong_name_of_a_component_is_told_with_the_nodes_that_have_none(tree: str) -> None:
    code, _, err = command("validate", tree, *components("parts:Any", "scale", "a", "both", "b", "d"))
    assert code == 1
    assert "no code here for node 'c'" in err
    assert "component 'd' is given, and no node, container or image has that name" in err


def test_validate_and_invoke_take_the_code_that_serve_takes(tree: str) -> None:
    assert command("validate", tree, *components()) == (0, "", "no problems found\n")
    body = '{"data": {"ndarray": [[1.0]]}}'
    code, out, _ = command("invoke", tree, "/api/v1.0/predictions", "-d", body, *components())
    assert (code, json.loads(out)["data"]["ndarray"]) == (0, [[1.0]])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("a",), "--component takes NODE=module:Class, not 'a'"),
        (("a=x:Y", "a=x:Z"), "--component a is given twice: 'x:Y' and 'x:Z'"),
    ],
)
def test_wrong_component_options_are_refused(given: tuple[str, ...], message: str, tree: str) -> None:
    words = [word for text in given for word in ("--component", text)]
    for name in ("validate", "plot", "invoke", "serve"):
        assert command(name, tree, *words) == (1, "", f"Error: {message}\n")


def test_components_of_what_is_no_deployment_are_refused(tmp_path: Path) -> None:
    for file, text in (("f.py", ""), ("graph.json", '{"kind": "router", "routes": {}}')):
        (tmp_path / file).write_text(text)
        code, _, err = command("plot", str(tmp_path / file), "--component", "a=b:C")
        assert (code, "component 'a' is given, and" in err, "is no SeldonDeployment" in err) == (1, True, True)
    code, _, err = command("invoke", "http://127.0.0.1:9/", "--component", "a=b:C")
    assert (code, "--component is for a deployment that runs in this process" in err) == (1, True)


def test_plot_needs_no_code_and_tells_the_kinds_of_nodes_apart(tree: str) -> None:
    code, out, _ = command("plot", tree)
    assert code == 0
    for drawn in (
        "garden/flowers",
        "main<br/><small>predictor<",
        '["scale<br/><small>TRANSFORMER<',
        '{"ab<br/><small>ROUTER: RANDOM_ABTEST<',
        '("a<br/><small>MODEL<',
        '[\\"both<br/><small>COMBINER<',
        "c<br/><small>TRANSFORM_INPUT<",
    ):
        assert drawn in out
    dot = command("plot", tree, "--format", "dot", *components("parts:Any", "a"))[1]
    shapes = dict(re.findall(r'label=<(?:<b>)?(\w+)<.*?shape="(\w+)"', dot))
    assert shapes == {
        "deployment": "doubleoctagon",
        "main": "doubleoctagon",
        "scale": "box",
        "ab": "diamond",
        "a": "ellipse",
        "both": "invtrapezium",
        "b": "ellipse",
        "c": "ellipse",
    }
    assert "MODEL: Any<" in dot


def test_plot_shows_images_servers_addresses_shares_and_shadows(tmp_path: Path) -> None:
    file = tmp_path / "deployment.yaml"
    file.write_text(
        f"""{HEAD}
  - name: main
    traffic: 75
    componentSpecs: [{{spec: {{containers: [{{name: m, image: "me/m:1.2"}}]}}}}]
    graph: {{name: m, children: [{{name: far, endpoint: {{service_host: h, service_port: 9000}}}}]}}
  - {{name: canary, traffic: 25, graph: {{name: own, implementation: OUR_SERVER, modelUri: x}}}}
  - {{name: dark, shadow: true, graph: {{name: s, implementation: SKLEARN_SERVER, modelUri: x}}}}
"""
    )
    code, out, err = command("plot", str(file))
    assert (code, err) == (0, "")
    for drawn in ("predictor, 75 #37;", "predictor, 25 #37;", "shadow", "MODEL: me/m:1.2", "MODEL: h:9000"):
        assert f"<small>{drawn}</small>" in out
    assert "MODEL: OUR_SERVER" in out
    assert "MODEL: SKLEARN_SERVER" in out


def test_one_of_several_deployments_is_chosen_by_the_option_that_the_message_names(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    graph = "  - {name: main, graph: {name: m, implementation: SIMPLE_MODEL}}\n"
    file.write_text(HEAD + graph + "---\n" + HEAD.replace("flowers", "second") + graph)
    code, _, err = command("plot", str(file))
    assert (code, "2 deployments, flowers, second: say which one with --name" in err) == (1, True)
    assert "garden/second" in command("plot", str(file), "--name", "second")[1]


def test_depth_that_a_deployment_may_have_is_told(tmp_path: Path) -> None:
    graph = "{name: n0}"
    for number in range(1, 60):
        graph = f"{{name: n{number}, children: [{graph}]}}"
    code, _, err = command("plot", str(deployment(tmp_path, graph)))
    assert (code, "is nested deeper than the 100 levels of lists and objects" in err) == (1, True)
