from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import servegraph
from servegraph import jsoncodec
from servegraph.errors import SettingsError, SpecError
from servegraph.runtimes.function import ServingFunction, code_to_function
from servegraph.runtimes.nuclio.export import export_nuclio
from servegraph.runtimes.serving_spec import function_from_text

CODE = '''"""My function."""

from __future__ import annotations

import servegraph


class Iris(servegraph.V2ModelServer):
    def load(self):
        self.model = 1

    def predict(self, request):
        return request["inputs"]


def init(server):
    pass
'''


class Local(servegraph.V2ModelServer):
    """Lives in this file, which no deployment has."""


def iris(folder: Path, code: str = CODE, **fields: Any) -> ServingFunction:
    path = folder / "iris.py"
    path.write_text(code, "utf-8")
    function = code_to_function("iris", "demo", filename=str(path))
    for name, value in fields.items():
        setattr(function.spec, name, value)
    function.add_model("m", class_name="Iris", model_path="/models/iris")
    return function


def source_of(config: dict[str, Any]) -> str:
    return base64.b64decode(config["spec"]["build"]["functionSourceCode"]).decode()


def env_of(config: dict[str, Any]) -> dict[str, str]:
    return {v["name"]: v.get("value") for v in config["spec"]["env"]}


def test_export_gives_a_whole_function_configuration(tmp_path: Path) -> None:
    function = iris(tmp_path, requirements=["numpy>=1.26; python_version < '3.13'"], image="python:3.11-slim")
    function.set_env("LEVEL", 3)
    config = function.export()
    spec = config["spec"]
    assert (config["apiVersion"], config["kind"]) == ("nuclio.io/v1", "NuclioFunction")
    assert config["metadata"] == {"name": "iris", "labels": {"nuclio.io/project-name": "demo"}}
    assert (spec["handler"], spec["runtime"]) == ("iris-nuclio:handler", "python:3.11")
    assert spec["build"]["baseImage"] == "python:3.11-slim"
    assert spec["build"]["commands"] == [
        (
            f"pip install --no-cache-dir servegraph=={servegraph.__version__} "
            "'numpy>=1.26; python_version < '\"'\"'3.13'\"'\"''"
        )
    ]
    assert spec["triggers"]["http"] == {
        "kind": "http",
        "numWorkers": 1,
        "workerTerminationTimeout": "20s",
        "attributes": {"maxRequestBodySize": 64 * 1024**2},
    }
    assert (spec["readinessTimeoutSeconds"], spec["eventTimeout"]) == (330, "40s")
    assert list(env_of(config)) == ["LEVEL", "SERVING_SPEC_ENV"]
    again = function_from_text(env_of(config)["SERVING_SPEC_ENV"], is_json=True)
    assert again.uri == "demo/iris"
    assert again.graph.to_dict() == function.graph.to_dict()
    assert again.spec.source == ""


def test_export_carries_the_code_and_a_footer(tmp_path: Path) -> None:
    text = source_of(iris(tmp_path).export())
    assert text.startswith(CODE.rstrip())
    assert "\ndef init_context(context):" in text
    assert "\nasync def handler(context, event):" in text
    compile(text, "m", "exec", dont_inherit=True)


def test_export_follows_the_functions_settings(tmp_path: Path) -> None:
    settings = {"workers": 4, "timeouts": {"request_s": 5.5, "load_s": 10}, "limits": {"body_binary_bytes": 2**30}}
    spec = iris(tmp_path, settings=settings).export()["spec"]
    assert spec["triggers"]["http"]["numWorkers"] == 4
    assert spec["triggers"]["http"]["attributes"]["maxRequestBodySize"] == 2**30
    assert (spec["readinessTimeoutSeconds"], spec["eventTimeout"]) == (120, "16s")


def test_export_is_the_same_each_time_and_can_be_read_back(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    config = iris(tmp_path).export(one)
    iris(tmp_path).export(str(two))
    assert one.read_bytes() == two.read_bytes()
    assert yaml.safe_load(one.read_text("utf-8")) == config


def test_export_lets_the_functions_own_config_go_over_it(tmp_path: Path) -> None:
    config = {
        "metadata": {"namespace": "ns"},
        "spec": {
            "maxReplicas": 4,
            "runtime": "python:3.10",
            "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            "triggers": {"http": {"numWorkers": 2}, "in": {"kind": "cron", "attributes": {"interval": "10s"}}},
        },
    }
    out = iris(tmp_path, config=config).export()
    assert out["metadata"]["namespace"] == "ns"
    assert out["metadata"]["labels"] == {"nuclio.io/project-name": "demo"}
    assert (out["spec"]["maxReplicas"], out["spec"]["runtime"]) == (4, "python:3.10")
    assert [v["name"] for v in out["spec"]["env"]] == ["SERVING_SPEC_ENV", "A"]
    assert out["spec"]["triggers"]["http"]["numWorkers"] == 2
    assert out["spec"]["triggers"]["http"]["attributes"]
    assert set(out["spec"]["triggers"]) == {"http", "in"}


def test_export_of_a_large_spec_packs_it(tmp_path: Path) -> None:
    config = iris(tmp_path, parameters={"words": ["word"] * 5000}).export()
    text = env_of(config)["SERVING_SPEC_ENV"]
    assert len(text) < 2000
    assert function_from_text(text, is_json=True).spec.parameters == {"words": ["word"] * 5000}


def test_export_of_a_spec_beyond_the_environment_says_so(tmp_path: Path) -> None:
    import random

    words = [random.Random(1).getrandbits(60) for _ in range(1)] + [str(random.random()) for _ in range(20000)]
    with pytest.raises(SpecError, match=r"the spec takes \d+ bytes of the environment"):
        iris(tmp_path, parameters={"words": words}).export()


def test_export_installs_the_extras_that_addresses_need(tmp_path: Path) -> None:
    function = iris(tmp_path, error_stream="kafka://broker/errors")
    function.add_model("s", class_name="Iris", model_path="s3://bucket/m")
    assert "'servegraph[kafka,s3]==" in function.export()["spec"]["build"]["commands"][0]
    function.spec.requirements = ["servegraph @ https://wheels/servegraph-1-py3-none-any.whl"]
    assert function.export()["spec"]["build"]["commands"][0].count("servegraph") == 2


def test_export_never_holds_secrets_and_names_them(tmp_path: Path) -> None:
    function = iris(tmp_path).with_secrets("inline", {"TOKEN": "hunter2"})
    config = function.export()
    assert "hunter2" not in jsoncodec.dumps(config).decode()
    assert env_of(config)["SERVING_SECRETS_ENV"] == "TOKEN"
    function.set_env("PASSWORD", "hunter2")
    with pytest.raises(SpecError, match="secret 'TOKEN'"):
        function.export()
    function = iris(tmp_path, CODE + 'T = "hunter2"\n').with_secrets("inline", {"TOKEN": "hunter2"})
    with pytest.raises(SpecError, match=r"holds the value of the secret 'TOKEN'"):
        function.export()


def test_export_keeps_the_codes_own_handler_and_init_hook(tmp_path: Path) -> None:
    code = (
        CODE + "\n\ndef handler(event):\n    return event\n\n\nasync def init_context(context):\n    context.mine = 1\n"
    )
    config = iris(tmp_path, code).export()
    assert config["spec"]["handler"] == "iris-nuclio:servegraph_handler"
    text = source_of(config)
    assert "await _servegraph_user_init(context)" in text
    assert "async def servegraph_handler(context, event):" in text


def test_export_of_a_function_of_installed_classes_needs_no_code() -> None:
    function = servegraph.new_function("f")
    function.set_topology("flow").to(handler="json.dumps", name="s").respond()
    text = source_of(function.export())
    assert text.startswith("# ---")


def test_export_reads_the_file_of_a_function_made_with_command(tmp_path: Path) -> None:
    path = tmp_path / "f.py"
    path.write_text(CODE + "\n# servegraph: ignore\nfn = 1\n", "utf-8")
    function = servegraph.new_function("f", command=str(path))
    function.add_model("m", class_name="Iris")
    assert "fn = 1" not in source_of(function.export())


def _flow(step: Any = None, **arguments: Any) -> ServingFunction:
    function = servegraph.new_function("f")
    function.set_topology("flow").to(step, name="s", **arguments)
    return function


def _local(reference: Any) -> ServingFunction:
    function = servegraph.new_function("f")
    function.add_model("m", class_name=reference)
    return function


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: _flow(handler=lambda x: x), r"^\$\.spec\.graph\.steps\.s\.handler: a lambda"),
        (lambda: _local("Iris"), r"^\$\.spec\.graph\.routes\.m\.class_name: 'Iris' is in no code .*code_to_function"),
        (lambda: _local(Local), r"'test_nuclio_export\.py' on this machine.*code_to_function"),
        (lambda: _flow("servegraph.graph.builtin.Filter", _fn="check"), r"\$.*class_args\._fn: 'check' is in no code"),
        (lambda: servegraph.new_function("f", graph_initializer="start"), r"graph_initializer: 'start' is in no code"),
        (lambda: servegraph.new_function("dashboard"), "keeps for itself"),
    ],
)
def test_export_of_code_that_the_deployment_lacks_says_what_to_do(function: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        export_nuclio(function())


def test_export_of_a_class_from_main_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = type("Mine", (servegraph.V2ModelServer,), {"__module__": "__main__", "__qualname__": "Mine"})
    monkeypatch.setattr(sys.modules["__main__"], "Mine", mine, raising=False)
    with pytest.raises(SpecError, match=r"'Mine' is in no code .*code_to_function\(filename="):
        _local(mine).export()


def test_export_of_a_name_that_the_code_lacks_names_near_ones(tmp_path: Path) -> None:
    function = iris(tmp_path)
    function.add_model("n", class_name="Irs")
    with pytest.raises(
        SpecError, match=r"routes\.n\.class_name: the function's code has no 'Irs'; did you mean 'Iris'"
    ):
        function.export()


def test_export_of_code_that_imports_its_neighbours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "helpers.py").write_text("", "utf-8")
    with pytest.raises(SpecError, match=r"imports 'helpers', a file beside it \(helpers\.py\)"):
        iris(tmp_path, "import helpers\n" + CODE.replace("from __future__ import annotations", "")).export()


@pytest.mark.parametrize("bad", ["-r /etc/passwd", "--index-url=x", "a\nRUN x", "", "a\\"])
def test_export_of_a_requirement_that_is_none_is_refused(bad: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"\$\.spec\.requirements\[0\]"):
        iris(tmp_path, requirements=[bad]).export()


def test_export_quotes_what_the_shell_would_read(tmp_path: Path) -> None:
    command = iris(tmp_path, requirements=["a;$(touch /x)"]).export()["spec"]["build"]["commands"][0]
    assert command.endswith(" 'a;$(touch /x)'")


def test_export_of_a_command_of_several_lines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"\$\.spec\.commands\[0\]: a command is one line"):
        iris(tmp_path, commands=["a\nUSER root"]).export()


def test_export_of_tracking_without_a_stream_is_refused(tmp_path: Path) -> None:
    function = iris(tmp_path)
    function.set_tracking()
    with pytest.raises(SpecError, match="no stream is named"):
        function.export()


def test_export_to_an_unknown_target_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="did you mean 'nuclio'"):
        iris(tmp_path).export(target="nuclo")
