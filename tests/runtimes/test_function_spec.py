from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import servegraph
from servegraph.errors import SpecError
from servegraph.monitoring.tracking import Tracking
from servegraph.runtimes.function import FunctionSpec, ServingFunction
from servegraph.runtimes.function_spec import (
    IGNORED,
    function_from_dict,
    function_from_json,
    function_from_yaml,
    function_to_dict,
    function_to_json,
    function_to_yaml,
)
from servegraph.runtimes.source import load_function


class Model(servegraph.V2ModelServer):
    def load(self) -> None:
        self.model = 1

    def predict(self, request: dict[str, Any]) -> list[int]:
        return [self.model]


def initialize(server: Any) -> None:
    """Called with the server."""


def full_function() -> ServingFunction:
    function = servegraph.new_function("full", "demo", "v1", image="img", requirements=["numpy"])
    function.labels = {"team": "a"}
    function.verbose = True
    function.add_model("m", class_name=Model, model_path="models/m")
    function.set_tracking("file:///records.jsonl", batch=5)
    function.set_env("LEVEL", 3)
    spec = function.spec
    spec.commands = ["apt-get update"]
    spec.config = {"spec": {"maxReplicas": 3}}
    spec.filename, spec.workdir, spec.source = "f.py", "work", "x = 1\n"
    spec.parameters = {"threshold": 0.5}
    spec.load_mode, spec.load_timeout_s = "async", 30.0
    spec.default_content_type = "application/json"
    spec.error_stream = "file:///errors.jsonl"
    spec.graph_initializer = initialize
    spec.settings = {"limits": {"json_depth": 20}}
    spec.description = "words"
    return function


def test_function_dict_holds_what_is_set_in_order() -> None:
    data = function_to_dict(full_function())
    assert list(data) == ["kind", "metadata", "spec", "verbose"]
    assert data["metadata"] == {"name": "full", "project": "demo", "tag": "v1", "labels": {"team": "a"}}
    assert list(data["spec"]) == [
        "description", "image", "requirements", "commands", "config", "env", "filename", "workdir", "source",
        "parameters", "load_mode", "load_timeout_s", "default_content_type", "error_stream", "graph_initializer",
        "tracking", "settings", "graph",
    ]  # fmt: skip
    assert data["spec"]["graph_initializer"] == f"{__name__}.initialize"
    assert data["spec"]["graph"]["routes"]["m"]["class_name"] == f"{__name__}.Model"
    assert data["spec"]["tracking"] == {"stream_path": "file:///records.jsonl", "batch": 5, "enabled": True}


def test_function_dict_of_an_empty_function_is_small() -> None:
    data = servegraph.new_function("f").to_dict()
    assert data == {"kind": "serving", "metadata": {"name": "f", "project": "default"}, "spec": {}}


def test_function_dict_writes_every_field_of_a_function() -> None:
    assert set(function_to_dict(full_function())["spec"]) == set(FunctionSpec.__dataclass_fields__)


def test_function_reads_back_equal() -> None:
    data = function_to_dict(full_function())
    for again in (
        function_from_dict(data),
        function_from_json(function_to_json(full_function())),
        function_from_yaml(function_to_yaml(full_function())),
    ):
        assert function_to_dict(again) == data
        assert again.spec.tracking == Tracking.checked(stream_path="file:///records.jsonl", batch=5)
        assert again.verbose


def test_function_dict_names_its_own_code_by_bare_names(tmp_path: Path) -> None:
    path = tmp_path / "f.py"
    path.write_text(
        "import servegraph\n"
        "class M(servegraph.V2ModelServer):\n    pass\n"
        "def check(x):\n    return True\n"
        "def init(server):\n    pass\n"
        "fn = servegraph.new_function('f')\n"
        "graph = fn.set_topology('flow')\n"
        "graph.to(class_name='servegraph.graph.builtin.Filter', name='flt', fn=check)"
        ".to('*', name='r').respond().add_route('m', class_name=M)\n"
        "fn.spec.graph_initializer = init\n",
        "utf-8",
    )
    spec = function_to_dict(load_function(str(path)))["spec"]
    assert spec["graph_initializer"] == "init"
    assert spec["graph"]["steps"]["flt"]["class_args"] == {"_fn": "check"}
    assert spec["graph"]["steps"]["r"]["routes"]["m"]["class_name"] == "M"
    assert spec["filename"] == str(path)


def test_function_dict_with_a_lambda_names_the_place() -> None:
    function = servegraph.new_function("f")
    function.set_topology("flow").to(handler=lambda x: x, name="s")
    with pytest.raises(SpecError, match=r"^\$\.spec\.graph\.steps\.s\.handler: a lambda"):
        function_to_dict(function)


def test_function_dict_of_what_json_cannot_hold_names_the_place() -> None:
    function = servegraph.new_function("f", parameters={"a": {"b": object()}})
    with pytest.raises(SpecError, match=r"^\$\.spec\.parameters\.a\.b: "):
        function_to_dict(function)


def test_function_dict_never_holds_secrets() -> None:
    function = full_function().with_secrets("inline", {"TOKEN": "hunter2"})
    assert "hunter2" not in function_to_json(function)
    function.spec.parameters["where"] = "https://x/?t=hunter2"
    with pytest.raises(
        SpecError, match=r"^\$\.spec\.parameters\.where: holds the value of the secret 'TOKEN'"
    ) as caught:
        function_to_dict(function)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], r"^\$: a function's spec must be an object"),
        ({"metdata": {}}, r"^\$\.metdata: .*did you mean 'metadata'"),
        ({"kind": "job"}, r"^\$\.kind: .*'job'"),
        ({"metadata": {"nam": "x"}}, r"^\$\.metadata\.nam: .*did you mean 'name'"),
        ({"metadata": {"name": "!"}}, r"^\$\.metadata\.name: "),
        ({"metadata": {"labels": {"a": 1}}}, r"^\$\.metadata\.labels: must be an object of texts"),
        ({"spec": []}, r"^\$\.spec: must be an object"),
        ({"spec": {"grph": {}}}, r"^\$\.spec\.grph: .*did you mean 'graph'"),
        ({"spec": {"graph": {"steps": {"s": {"handlr": "x"}}}}}, r"^\$\.spec\.graph\.steps\.s\.handlr: "),
        ({"spec": {"load_mode": "later"}}, r"^\$\.spec\.load_mode: must be one of sync, async"),
        ({"spec": {"load_timeout_s": 0}}, r"^\$\.spec\.load_timeout_s: "),
        ({"spec": {"settings": {"prt": 1}}}, r"^\$\.spec\.settings: .*prt"),
        ({"spec": {"tracking": {"batch": 0}}}, r"^\$\.spec\.tracking: .*batch"),
        ({"spec": {"tracking": {"bach": 1}}}, r"^\$\.spec\.tracking: .*bach"),
        ({"spec": {"source": "https://x/y.zip"}}, r"^\$\.spec\.source: code is not fetched"),
        ({"spec": {"build": {"functionSourceCode": "?"}}}, r"^\$\.spec\.build\.functionSourceCode: must be base64"),
        ({"spec": {"env": [{"name": "A", "valueFrom": {"x": 1}}]}}, r"^\$\.spec\.env\[0\]: 'A' takes its value"),
        ({"verbose": "yes"}, r"^\$\.verbose: must be true or false"),
    ],
)
def test_function_from_a_wrong_dict_names_the_path(data: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        function_from_dict(data)


def test_function_from_wrong_yaml_names_the_line() -> None:
    with pytest.raises(SpecError, match=r"^line 3: \$\.spec\.imge"):
        function_from_yaml("metadata: {name: f}\nspec:\n  imge: x\n")


def test_function_from_a_dict_of_mlrun_takes_its_words() -> None:
    data = {
        "kind": "serving",
        "metadata": {"name": "my_fn", "project": "p", "tag": "", "hash": "ab", "categories": [], "updated": "now"},
        "spec": {
            "command": "",
            "args": [],
            "image": "mlrun/mlrun",
            "build": {
                "functionSourceCode": base64.b64encode(b"class M: pass\n").decode(),
                "requirements": ["a"],
                "commands": ["b"],
                "code_origin": "git",
            },
            "env": [{"name": "A", "value": "1"}],
            "parameters": {"log_stream": "file:///x.jsonl", "log_stream_batch": 4, "z": 1},
            "track_models": True,
            "graph": {"kind": "router", "routes": {"m": {"kind": "task", "class_name": "M"}}},
            "load_mode": "sync",
            "function_kind": "serving_v2",
            "min_replicas": 1,
            "resources": {"requests": {}},
            "error_stream": "",
        },
        "verbose": False,
        "status": {"state": "ready"},
    }
    function = function_from_dict(data)
    assert (function.name, function.project) == ("my-fn", "p")
    assert function.spec.source == "class M: pass\n"
    assert (function.spec.requirements, function.spec.commands) == (["a"], ["b"])
    assert function.spec.env == {"A": "1"}
    assert function.spec.tracking == Tracking.checked(stream_path="file:///x.jsonl", batch=4)
    assert function_from_dict(function_to_dict(function)).spec.tracking == function.spec.tracking


@pytest.mark.parametrize(("part", "key"), [(p, k) for p, keys in IGNORED.items() for k in keys])
def test_function_from_a_dict_ignores_keys_that_are_listed(part: str, key: str) -> None:
    data: dict[str, Any] = {key: {}} if part == "function" else {part: {key: {}}}
    assert function_to_dict(function_from_dict(data))["spec"] == {}


_TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
_NAME = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)
_GRAPHS = st.sampled_from(
    [
        None,
        {"kind": "router", "routes": {"m": {"kind": "task", "class_name": "a.B", "class_args": {"x": 1}}}},
        {"engine": "sync", "steps": {"s": {"kind": "task", "handler": "json.dumps", "responder": True}}},
    ]
)
_FUNCTIONS = st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries(
            {"name": _NAME}, optional={"tag": _TEXT, "labels": st.dictionaries(_NAME, _TEXT)}
        ),
        "spec": st.fixed_dictionaries(
            {},
            optional={
                "image": _TEXT,
                "description": _TEXT,
                "requirements": st.lists(_TEXT, max_size=3),
                "env": st.dictionaries(_NAME, _TEXT, max_size=3),
                "parameters": st.dictionaries(_TEXT, _JSON, max_size=3),
                "config": st.dictionaries(_TEXT, _JSON, max_size=2),
                "source": _TEXT.map(lambda t: f"{t}\n"),
                "load_mode": st.sampled_from(["sync", "async"]),
                "load_timeout_s": st.floats(0.1, 100),
                "tracking": st.fixed_dictionaries({}, optional={"batch": st.integers(1, 9), "enabled": st.booleans()}),
                "graph": _GRAPHS,
            },
        ),
    }
)


@given(_FUNCTIONS)
def test_function_dict_json_and_yaml_come_back_equal(data: dict[str, Any]) -> None:
    function = function_from_dict(data)
    written = function_to_dict(function)
    assert function_to_dict(function_from_dict(written)) == written
    assert function_to_json(function_from_json(function_to_json(function))) == function_to_json(function)
    assert function_to_yaml(function_from_yaml(function_to_yaml(function))) == function_to_yaml(function)


@given(_FUNCTIONS, st.dictionaries(_NAME, st.text("abcdefgh", min_size=6, max_size=9), min_size=1, max_size=3))
def test_function_dict_with_secrets_holds_none_of_them(data: dict[str, Any], secrets: dict[str, str]) -> None:
    function = function_from_dict(data).with_secrets("inline", secrets)
    try:
        text = function_to_json(function)
    except SpecError:
        return
    assert not any(value in text for value in secrets.values())
