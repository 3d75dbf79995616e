"""How the nodes of a SeldonDeployment start: their environment, their code, and what is told of a failure."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served_command import Served, run

import servegraph
from servegraph.errors import GraphError, ModelLoadError, SpecError
from servegraph.runtimes.seldon.deployment import function_from_text
from servegraph.serving.seldon.bandits import EpsilonGreedy, ThompsonSampling

PREDICTIONS = "/api/v1.0/predictions"
ONE = {"data": {"ndarray": [[1.0, 2.0]]}}
HEAD = """
apiVersion: machinelearning.seldon.io/v1
kind: SeldonDeployment
metadata: {name: sums, namespace: ns}
spec:
  predictors:
"""
ALONE = HEAD + "    - {name: main, graph: {name: a, type: MODEL}}\n"


def asked(text: str, components: dict[str, Any] | None = None, body: Any = None, folder: Path | str = ".") -> Any:
    with function_from_text(text, folder, components=components).to_mock_server() as server:
        return server.test(PREDICTIONS, body or ONE)


# -- environment -------------------------------------------------------------------------------------------------------

SAYS = """
import os
AT_IMPORT = os.environ.get("SG_X")
class Model:
    def __init__(self):
        self.made = os.environ.get("SG_X")
    def load(self):
        self.loaded = os.environ.get("SG_X")
    def predict(self, X, names):
        own = {n: v for n, v in os.environ.items() if n.startswith(("PREDICT", "SELDON_"))}
        return {"seen": [AT_IMPORT, self.made, self.loaded, os.environ.get("SG_X")], "own": own,
                "above": X["seen"] if isinstance(X, dict) else None}
"""


def with_env(*nodes: tuple[str, str], tree: str) -> str:
    pods = "".join(
        f"          - spec: {{containers: [{{name: {name}, image: 'i/{name}:1', env: {env}}}]}}\n"
        for name, env in nodes
    )
    return f"{HEAD}    - name: main\n      componentSpecs:\n{pods}      graph: {tree}\n"


def test_node_has_its_containers_variables_while_it_starts_and_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SG_X", "before")
    for name in ("PREDICTIVE_UNIT_ID", "PREDICTOR_ID", "SELDON_DEPLOYMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "says_a.py").write_text(SAYS)
    tree = "{name: a, parameters: []}"
    text = with_env(("a", "[{name: SG_X, value: one}]"), tree=tree)
    answer = asked(text, {"a": "says_a.py:Model"}, folder=tmp_path)["jsonData"]
    assert answer["seen"] == ["one"] * 4
    assert answer["own"] == {
        "PREDICTIVE_UNIT_ID": "a",
        "PREDICTIVE_UNIT_IMAGE": "i/a:1",
        "PREDICTIVE_UNIT_PARAMETERS": "[]",
        "PREDICTOR_ID": "main",
        "PREDICTOR_LABELS": '{"version": "main"}',
        "SELDON_DEPLOYMENT_ID": "sums",
        "SELDON_EXECUTOR_ENABLED": "true",
    }
    assert os.environ["SG_X"] == "before"
    assert "PREDICTIVE_UNIT_ID" not in os.environ


def test_variables_that_differ_are_the_nodes_own_at_start_and_put_back_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SG_X", raising=False)
    for name in "ab":
        (tmp_path / f"says_{name}.py").write_text(SAYS)
    monkeypatch.delenv("PREDICTIVE_UNIT_ID", raising=False)
    env = "[{{name: SG_X, value: {0}}}, {{name: SG_SAME, value: same}}]"
    text = with_env(
        ("a", env.format("one")), ("b", env.format("two")), tree="{name: a, type: MODEL, children: [{name: b}]}"
    )
    function = function_from_text(text, tmp_path, components={"a": "says_a.py:Model", "b": "says_b.py:Model"})
    with caplog.at_level(logging.WARNING), function.to_mock_server() as server:
        answer = server.test(PREDICTIONS, ONE)["jsonData"]
        assert answer["seen"] == ["two", "two", "two", None]
        assert answer["above"] == ["one", "one", "one", None]
        assert os.environ["SG_SAME"] == "same"
        assert os.environ["SELDON_DEPLOYMENT_ID"] == "sums"
        assert "PREDICTIVE_UNIT_ID" not in os.environ
    assert "SG_SAME" not in os.environ
    [message] = [r.getMessage() for r in caplog.records if "environment variable" in r.getMessage()]
    assert all(part in message for part in ("SG_X", "'main/a'", "'main/b'"))


def test_values_from_elsewhere_are_warned_of_unless_the_process_has_them(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SG_HERE", "1")
    env = "[{name: SG_HERE, valueFrom: {secretKeyRef: {name: s, key: k}}}, {name: SG_FAR, valueFrom: {fieldRef: {}}}]"
    text = with_env(("a", env + ", envFrom: [{secretRef: {name: keys}}]"), tree="{name: a}")
    with caplog.at_level(logging.WARNING):
        asked(text, {"a": Plain})
    [message] = [r.getMessage() for r in caplog.records if "in the cluster" in r.getMessage()]
    assert message.startswith("node 'a': the values of SG_FAR, all of secret 'keys' are")


class Plain:
    def __init__(self, x: int = 0) -> None:
        self.x = x

    def predict(self, X: Any, names: Any) -> Any:
        return X + 1


def test_environment_is_put_back_when_the_start_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SG_X", raising=False)

    class Fails(Plain):
        def load(self) -> None:
            raise RuntimeError(os.environ["SG_X"])

    text = with_env(("a", "[{name: SG_X, value: one}]"), tree="{name: a}")
    with pytest.raises(ModelLoadError, match=r"^node 'a': one$"):
        asked(text, {"a": Fails})
    assert "SG_X" not in os.environ


# -- failures ----------------------------------------------------------------------------------------------------------


def failing(where: str) -> type:
    class Fails:
        def __init__(self, **_: Any) -> None:
            if where == "init":
                raise LookupError("no model")

        def load(self) -> None:
            if where == "load":
                raise LookupError("no model")

        def predict(self, X: Any, names: Any) -> Any:
            return X

    return Fails


@pytest.mark.parametrize("where", ["init", "load"])
def test_failure_of_the_nodes_code_begins_with_its_name(where: str) -> None:
    with pytest.raises(ModelLoadError, match=r"^node 'a': no model$") as caught:
        asked(ALONE, {"a": failing(where)})
    assert isinstance(caught.value.__cause__, LookupError)


@pytest.mark.parametrize(
    ("node", "component", "message"),
    [
        ("{name: a, parameters: [{name: y, value: abc}]}", Plain, "Plain cannot be made with parameters y"),
        ("{name: a, implementation: TENSORFLOW_SERVER, modelUri: x}", None, "the parameter model_name is needed"),
        ("{name: a}", "nowhere:Model", "nowhere"),
        ("{name: a, type: ROUTER, parameters: [{name: epsilon, value: '2', type: FLOAT}], children: [{name: b}]}",
         EpsilonGreedy, "epsilon is 2.0"),
    ],
)  # fmt: skip
def test_mistake_in_a_node_begins_with_its_name(node: str, component: Any, message: str) -> None:
    text = f"{HEAD}    - {{name: main, graph: {node}}}\n"
    given = {"a": component} if component is not None else {}
    if "b}" in node:
        given["b"] = Plain
    with pytest.raises(Exception, match=rf"^node 'a': .*{message}"):
        asked(text, given)


def test_served_deployment_tells_the_place_in_the_nodes_code_and_nothing_of_the_way_there(tmp_path: Path) -> None:
    (tmp_path / "d.yaml").write_text(ALONE)
    (tmp_path / "a").mkdir()
    model = tmp_path / "a" / "Model.py"
    model.write_text("class Model:\n    def load(self):\n        raise RuntimeError('no model')\n")
    done = run("serve", str(tmp_path / "d.yaml"), "--http-port", "0", "--grpc-port", "off")
    assert done.returncode == 1
    assert "the application cannot be started: node 'a': RuntimeError: no model\n" in done.stderr
    assert done.stderr.count("Traceback") == 1
    assert f'{model}", line 3, in load' in done.stderr
    assert "servegraph/" not in done.stderr.replace(str(tmp_path), "")


# -- bandits -----------------------------------------------------------------------------------------------------------


def router(parameters: str = "[]") -> str:
    graph = f"{{name: r, type: ROUTER, parameters: {parameters}, children: [{{name: b}}, {{name: c}}]}}"
    return f"{HEAD}    - {{name: main, graph: {graph}}}\n"


@pytest.mark.parametrize(
    "bandit", [EpsilonGreedy, ThompsonSampling, "servegraph.serving.seldon.bandits:ThompsonSampling"]
)
def test_bandit_has_as_many_branches_as_its_node_has_children(bandit: Any) -> None:
    answer = asked(router(), {"r": bandit, "b": Plain, "c": Plain})
    assert answer["meta"]["routing"]["r"] in (0, 1)


@pytest.mark.parametrize("bandit", [EpsilonGreedy, EpsilonGreedy(5)])
def test_bandit_with_another_number_of_branches_is_an_error_at_start(bandit: Any) -> None:
    text = router("[{name: n_branches, value: '5', type: INT}]" if isinstance(bandit, type) else "[]")
    with pytest.raises(
        GraphError, match=r"^node 'r': the router has 5 branches \(n_branches\), and the node 2 children$"
    ):
        asked(text, {"r": bandit, "b": Plain, "c": Plain})


# -- other code --------------------------------------------------------------------------------------------------------


class Times(servegraph.V2ModelServer):
    def load(self) -> None:
        self.factor = self.get_param("factor", 2)
        self.where = self.model_path

    def predict(self, request: dict[str, Any]) -> Any:
        return [[x * self.factor for x in row] for row in request["inputs"]]


class TimesAsync(Times):
    async def predict(self, request: dict[str, Any]) -> Any:
        return super().predict(request)


@pytest.mark.parametrize("model", [Times, TimesAsync, Times(name="t", factor=3)])
def test_v2_model_is_the_code_of_a_node(model: Any) -> None:
    text = f"{HEAD}    - {{name: main, graph: {{name: a, parameters: [{{name: factor, value: '3', type: INT}}]}}}}\n"
    assert asked(text, {"a": model})["data"]["ndarray"] == [[3.0, 6.0]]
    tensor = asked(text, {"a": model}, {"data": {"tensor": {"shape": [1, 2], "values": [1.0, 2.0]}}})
    assert list(tensor["data"]["tensor"]["values"]) == [3.0, 6.0]
    assert tensor["meta"]["requestPath"] == {
        "a": type(model).__name__ if not isinstance(model, type) else model.__name__
    }


def test_v2_model_below_a_node_with_children_and_with_a_model_uri() -> None:
    tree = "{name: t, type: TRANSFORMER, children: [{name: a, modelUri: 'models/x'}]}"

    class Add:
        def transform_input(self, X: Any, names: Any) -> Any:
            return X + 1

    class Where(Times):
        def predict(self, request: dict[str, Any]) -> Any:
            assert str(self.where).endswith("models/x")
            return super().predict(request)

    text = f"{HEAD}    - {{name: main, graph: {tree}}}\n"
    assert asked(text, {"a": Where, "t": Add})["data"]["ndarray"] == [[4.0, 6.0]]


def test_v2_model_takes_no_feedback_and_no_other_type() -> None:
    with function_from_text(ALONE, components={"a": Times}).to_mock_server() as server:
        server.test("/api/v1.0/feedback", {"request": ONE, "reward": 1})
    with pytest.raises(
        GraphError, match=r"^node 'a': Times is a V2ModelServer, which only predicts: it has no transform"
    ):
        asked(ALONE.replace("type: MODEL", "type: TRANSFORMER"), {"a": Times})


def test_v2_model_that_does_not_load_is_told_with_its_node() -> None:
    class Fails(Times):
        def load(self) -> None:
            raise LookupError("no model")

    with pytest.raises(ModelLoadError, match=r"^node 'a': failed to load model 'a': no model$"):
        asked(ALONE, {"a": Fails})


def test_served_deployment_has_a_v2_model_and_a_function(tmp_path: Path) -> None:
    (tmp_path / "d.yaml").write_text(HEAD + "    - {name: main, graph: {name: f, children: [{name: v}]}}\n")
    (tmp_path / "v2.py").write_text(
        "import servegraph\nclass V2(servegraph.V2ModelServer):\n    def load(self):\n        self.by = 10\n"
        "    def predict(self, request):\n        return [[x * self.by for x in r] for r in request['inputs']]\n"
    )
    (tmp_path / "f.py").write_text("def plus(X, names):\n    return X + 1\n")
    given = ("--component", "v=v2:V2", "--component", "f=f.py:plus")
    with Served("d.yaml", *given, "--grpc-port", "off", cwd=tmp_path) as served:
        status, body = served.ask(PREDICTIONS, ONE)
    assert (status, body["data"]["ndarray"]) == (200, [[20.0, 30.0]])


def plus(X: Any) -> Any:
    return np.asarray(X) + 1


async def plus_async(X: Any, names: Any) -> Any:
    return np.asarray(X) + 1


@pytest.mark.parametrize("function", [plus, plus_async])
def test_function_of_x_is_the_code_of_a_node(function: Any) -> None:
    assert asked(ALONE, {"a": function})["data"]["ndarray"].tolist() == [[2.0, 3.0]]


def test_function_takes_no_parameters_and_another_one_makes_a_component() -> None:
    text = f"{HEAD}    - {{name: main, graph: {{name: a, parameters: [{{name: x, value: '3', type: INT}}]}}}}\n"
    with pytest.raises(GraphError, match=r"^node 'a': plus is a function of X: parameters are for a class"):
        asked(text, {"a": plus})
    assert asked(text, {"a": lambda x: Plain(x)})["data"]["ndarray"].tolist() == [[2.0, 3.0]]


# -- implementations ---------------------------------------------------------------------------------------------------


def test_unknown_implementation_tells_how_to_name_code_for_it() -> None:
    with pytest.raises(SpecError, match=r"there is no packaged server 'FOO_SERVER'.*--component a=module:Class"):
        function_from_text(f"{HEAD}    - {{name: main, graph: {{name: a, implementation: FOO_SERVER, modelUri: x}}}}\n")


def test_tensorflow_serving_that_nobody_starts_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    parameters = "[{name: model_name, value: mnist}]"
    uri = "gs://seldon-models/tfserving/mnist-model"
    node = f"{{name: a, implementation: TENSORFLOW_SERVER, modelUri: '{uri}', parameters: {parameters}}}"
    with caplog.at_level(logging.WARNING):
        with function_from_text(f"{HEAD}    - {{name: main, graph: {node}}}\n").to_mock_server():
            pass
        [message] = [r.getMessage() for r in caplog.records]
        assert all(part in message for part in (uri, "'mnist'", "0.0.0.0:2001", "rest_endpoint", "TENSORFLOW, which"))
        caplog.clear()
        node = node.replace("mnist}", "mnist}, {name: rest_endpoint, value: 'http://127.0.0.1:1'}")
        with function_from_text(f"{HEAD}    - {{name: main, graph: {node}}}\n").to_mock_server():
            pass
    assert not caplog.records


def test_what_a_node_is_told_is_in_its_spec() -> None:
    text = with_env(("a", "[{name: B, value: 1}, {name: C, valueFrom: {fieldRef: {}}}]"), tree="{name: a}")
    spec = json.loads(json.dumps(function_from_text(text, components={"a": "m:A"}).to_dict()))
    assert '"env": {"B": "1"}, "env_elsewhere": ["C"]' in json.dumps(spec)
