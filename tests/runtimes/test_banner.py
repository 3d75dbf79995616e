"""What a server tells of itself, and the example request that it offers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import servegraph
from servegraph import jsoncodec
from servegraph.runtimes.banner import banner, describe, example, reachable_url
from servegraph.runtimes.function import ServingFunction
from servegraph.runtimes.worker_protocol import WorkerInfo
from servegraph.serving.model_metadata import save_model_spec

URL = "http://127.0.0.1:8080"


class Plain(servegraph.V2ModelServer):
    def load(self) -> None:
        if self.model_path:
            self.get_model(".txt")

    def predict(self, request: Any) -> Any:
        return [0 for _ in request["inputs"]]


class WithRows(Plain):
    example_inputs = ("it's",)


def function(*models: tuple[str, type, dict[str, Any]], router: Any = None, **router_args: Any) -> ServingFunction:
    fn = servegraph.new_function("shown", project="lab")
    fn.set_topology("router", router, **router_args)
    for key, kind, arguments in models:
        fn.add_model(key, class_name=kind, **arguments)
    return fn


def model_folder(folder: Path, inputs: list[dict[str, Any]]) -> str:
    (folder / "model.txt").write_text("")
    save_model_spec(folder, "model.txt", inputs=inputs)
    return str(folder)


def asked(fn: ServingFunction) -> tuple[str, Any]:
    """The path and body of the example; the server must answer it."""
    with fn.to_mock_server() as server:
        request = example(server)
        body = None if request.body is None else jsoncodec.loads(request.body)
        if request.path != "/v2/health/ready":
            server.test(request.path, body)
        return request.path, body


def test_banner_names_function_models_and_addresses() -> None:
    fn = function(("a", Plain, {}), ("b:v2", Plain, {}))
    worker = WorkerInfo(0, 1, 1, "0.0.0.0", 9000, "", 1)
    with fn.to_mock_server() as server:
        text = banner(server, worker)
    assert f"servegraph {servegraph.__version__} serves lab/shown" in text
    assert "model    a: Plain, loaded in 0.0" in text
    assert "model    b:v2: Plain" in text
    assert "URL      http://127.0.0.1:9000\n" in text
    assert "listens  on 0.0.0.0: all addresses of this machine\n" in text
    assert "docs     http://127.0.0.1:9000/docs\n" in text
    assert "try      curl -s http://127.0.0.1:9000/v2/models/a/ready\n" in text


def test_banner_of_many_models_is_cut() -> None:
    with function(*((f"m{i}", Plain, {}) for i in range(100))).to_mock_server() as server:
        text = describe(server, URL)
    assert "and 89 more" in text
    assert len(text.splitlines()) < 25


def test_banner_of_a_flow_lists_its_steps() -> None:
    fn = servegraph.new_function("shown")
    graph = fn.set_topology("flow")
    graph.to(name="clean", handler=lambda x: x).to("*", name="models").to(name="out", handler=lambda x: x).respond()
    graph["models"].add_route("m", class_name=Plain)
    with fn.to_mock_server() as server:
        text = describe(server, URL)
    assert "router   models: ModelRouter after clean" in text
    assert "  model  m: Plain" in text
    assert "after models, answers" in text
    assert "/v2/health/ready" in text


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("models.example", "http://models.example:80"),
    ],
)
def test_url_is_one_that_this_machine_reaches(host: str, url: str) -> None:
    assert reachable_url(host, 80) == url


def test_example_is_what_the_model_gives_then_what_its_metadata_says(tmp_path: Path) -> None:
    inputs = [{"name": "age", "value_type": "int"}, {"name": "size", "value_type": "float"}]
    inputs += [{"name": "word", "value_type": "str"}, {"name": "new", "value_type": "bool"}]
    folder = {"model_path": model_folder(tmp_path, inputs)}
    assert asked(function(("m", Plain, folder))) == ("/v2/models/m/infer", {"inputs": [[0, 0.0, "", False]]})
    assert asked(function(("m", Plain, folder), ("n", WithRows, {}))) == ("/v2/models/n/infer", {"inputs": ["it's"]})
    given = {**folder, "example_inputs": [[1, 2.5, "x", True]]}
    assert asked(function(("m:v1", Plain, given)))[0] == "/v2/models/m/versions/v1/infer"
    assert asked(function(("m", Plain, {}))) == ("/v2/models/m/ready", None)


def test_example_of_an_array_input_has_its_shape(tmp_path: Path) -> None:
    path = model_folder(tmp_path, [{"name": "image", "value_type": "float", "shape": [None, 2, 3]}])
    assert asked(function(("m", Plain, {"model_path": path})))[1] == {"inputs": [[[0.0] * 3] * 2]}


def test_example_that_would_be_too_long_is_left_out() -> None:
    assert asked(function(("m", Plain, {"example_inputs": [[0.5] * 500]}))) == ("/v2/models/m/ready", None)


def test_example_of_an_ensemble_asks_the_ensemble() -> None:
    fn = function(("m", WithRows, {}), ("n", Plain, {}), router="servegraph.serving.VotingEnsemble")
    assert asked(fn) == ("/v2/models/infer", {"inputs": ["it's"]})


def test_example_of_a_flow_is_the_functions_own() -> None:
    fn = servegraph.new_function("shown")
    fn.set_topology("flow", engine="sync").to(name="a", handler=lambda x: x)
    assert asked(fn) == ("/v2/health/ready", None)
    fn.spec.parameters["example_body"] = {"text": "hello"}
    assert asked(fn) == ("/", {"text": "hello"})


def test_curl_line_quotes_for_a_shell() -> None:
    with function(("m", WithRows, {})).to_mock_server() as server:
        line = example(server).curl(URL)
    assert line.endswith("""-d '{"inputs":["it'"'"'s"]}'""")
