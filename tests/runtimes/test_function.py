from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest

import servegraph
from servegraph.errors import GraphError, SettingsError
from servegraph.graph.flow import FlowGraph, RouterGraph
from servegraph.runtimes.function import FunctionSpec, ServingFunction, new_function, normalize_name


class Model(servegraph.V2ModelServer):
    def load(self) -> None:
        pass

    def predict(self, request: Any) -> Any:
        return [x * self.get_param("factor", 1) for x in request["inputs"]]


def same(body: Any) -> Any:
    return body


# -- names and fields -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "clean"),
    [("iris", "iris"), ("My Model_2", "my-model-2"), ("-a-", "a"), ("grün", "gr-n"), ("a" * 63, "a" * 63)],
)
def test_name_is_made_one_that_kubernetes_takes(name: str, clean: str) -> None:
    assert normalize_name(name) == clean
    assert new_function(name).name == clean


@pytest.mark.parametrize("name", ["", "---", "ü", "a" * 64])
def test_name_that_nothing_is_left_of_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="is no function name"):
        normalize_name(name)


def test_new_function_has_its_fields_and_uri() -> None:
    fn = new_function("f", "shop", "v2", image="img", requirements=["numpy"], load_mode="async", parameters={"a": 1})
    assert (fn.uri, fn.kind) == ("shop/f:v2", "serving")
    assert (fn.spec.image, fn.spec.requirements, fn.spec.load_mode) == ("img", ["numpy"], "async")
    assert repr(fn) == "<ServingFunction shop/f:v2>"
    assert new_function("f").uri == "default/f"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "job"}, "kind is 'job'"),
        ({"command": "/no/such/file.py"}, "there is no such file"),
        ({"paramters": {}}, "did you mean 'parameters'"),
    ],
)
def test_new_function_with_a_wrong_argument_says_so(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        new_function("f", **arguments)


def test_new_function_of_a_file_is_named_after_it_and_finds_its_code(tmp_path: Path) -> None:
    file = tmp_path / "my_code.py"
    file.write_text("def double(body):\n    return body * 2\n")
    fn = new_function(command=str(file))
    assert fn.name == "my-code"
    fn.set_topology("flow").to(name="d", handler="double").respond()
    with fn.to_mock_server() as server:
        assert server.test("/", 4) == 8


# -- graphs -----------------------------------------------------------------------------------------------------------


def test_set_topology_gives_the_graph() -> None:
    fn = new_function("f")
    assert isinstance(fn.set_topology(), RouterGraph)
    assert fn.graph is fn.spec.graph
    graph = fn.set_topology("flow", engine="sync", exist_ok=True, allow_cyclic=True, max_iterations=3, fail_fast=True)
    assert isinstance(graph, FlowGraph)
    assert (graph.engine, graph.allow_cyclic, graph.max_iterations, graph.fail_fast) == ("sync", True, 3, True)
    assert new_function("f").set_topology("router", "My", url_prefix="/x").class_args == {"url_prefix": "/x"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"topology": "flwo"}, "did you mean 'flow'"),
        ({"topology": "flow", "engine": "storey"}, "valid: sync, async"),
        ({"topology": "flow", "url_prefix": "/x"}, "takes no class"),
        ({"topology": "flow", "class_name": "X"}, "takes no class"),
        ({"topology": "router", "allow_cyclic": True}, "for flows"),
        ({"topology": "router", "max_iterations": 3}, "for flows"),
        ({"topology": "router", "fail_fast": True}, "for flows"),
    ],
)
def test_set_topology_with_a_wrong_argument_says_so(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(GraphError, match=words):
        new_function("f").set_topology(**arguments)


def test_set_topology_twice_needs_exist_ok() -> None:
    fn = new_function("f")
    fn.set_topology("flow")
    with pytest.raises(GraphError, match="exist_ok=True"):
        fn.set_topology("router")


def test_function_without_a_graph_says_what_to_do() -> None:
    fn = new_function("f")
    for use in (lambda: fn.graph, fn.to_mock_server, lambda: fn.serve(http_port=0, block=False)):
        with pytest.raises(GraphError, match=r"call set_topology\(\.\.\.\) or add_model"):
            use()


def test_add_model_makes_a_router_and_a_route() -> None:
    fn = new_function("f", parameters={"factor": 7})
    route = fn.add_model("m:v1", "models/a", Model, outputs=("label",), child_function="child", factor=2)
    assert route.class_args == {"outputs": ["label"], "model_path": "models/a", "factor": 2}
    assert route.function == "child"
    fn.add_model("n", class_name=Model)
    with fn.to_mock_server() as server:
        assert server.test("/v2/models/m/infer", {"inputs": [3]})["outputs"] == [6]
        assert server.test("/v2/models/n/infer", {"inputs": [3]})["outputs"] == [21]


def test_add_model_with_a_url_makes_a_remote_route() -> None:
    route = new_function("f").add_model("r", model_url="http://x/y")
    assert (route.class_name, route.class_args) == ("$remote", {"method": "POST", "url": "http://x/y"})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({}, "needs class_name"), ({"class_name": Model, "model_url": "http://x"}, "stands in place"),
     ({"model_path": "x", "model_url": "http://x"}, "stands in place")],
)  # fmt: skip
def test_add_model_with_too_little_or_too_much_says_so(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(GraphError, match=words):
        new_function("f").add_model("m", **arguments)


def test_add_model_in_a_flow_finds_the_router() -> None:
    fn = new_function("f")
    graph = fn.set_topology("flow")
    with pytest.raises(GraphError, match="has 0 routers"):
        fn.add_model("m", class_name=Model)
    graph.to("*", "one")
    fn.add_model("m", class_name=Model)
    graph.to("*", "two")
    with pytest.raises(GraphError, match=r"has 2 routers.*valid: one, two"):
        fn.add_model("m", class_name=Model)
    fn.add_model("n", class_name=Model, router_step="two")
    with pytest.raises(GraphError, match="no router 'tow'; did you mean 'two'"):
        fn.add_model("n", class_name=Model, router_step="tow")
    assert (list(graph["one"].routes), list(graph["two"].routes)) == (["m"], ["n"])


# -- what surrounds the graph -----------------------------------------------------------------------------------------


def test_namespaces_are_what_is_given_then_the_caller() -> None:
    fn = ServingFunction("f", spec=FunctionSpec())
    module, caller = types.ModuleType("m"), {"a": 1}
    assert fn.namespaces([module, None, {"b": 2}], caller) == [module, {"b": 2}, caller]
    assert fn.namespaces() == []
    with pytest.raises(GraphError, match="not str"):
        fn.namespaces(["x"])


def test_graph_initializer_is_called_with_the_server_before_the_steps_are_built() -> None:
    def start(server: Any) -> None:
        server.context.visits = {}

    class Visits:
        def __init__(self, context: Any) -> None:
            self.visits = context.visits

        def do(self, body: Any) -> Any:
            self.visits[body] = self.visits.get(body, 0) + 1
            return self.visits[body]

    fn = new_function("f", graph_initializer=start)
    fn.set_topology("flow").to(Visits, "v").respond()
    with fn.to_mock_server() as server:
        assert [server.test("/", "a"), server.test("/", "a")] == [1, 2]


def test_secrets_reach_the_context_and_no_spec() -> None:
    fn = new_function("f").with_secrets("inline", {"TOKEN": "hunter2"})
    fn.set_topology("flow").to(lambda body, context: context.get_secret("TOKEN"), "s").respond()
    with fn.to_mock_server() as server:
        assert server.test("/", 1) == "hunter2"
    other = new_function("g").with_secrets("inline", {"TOKEN": "hunter2"})
    other.set_topology("flow").to(name="s", handler="(event)").respond()
    assert "hunter2" not in str(other.to_dict())


def test_current_function_runs_its_part_only() -> None:
    fn = new_function("f")
    graph = fn.set_topology("flow", engine="sync")
    graph.to(lambda body: [*body, "parent"], "a").to(lambda body: [*body, "child"], "b", function="child")
    with fn.to_mock_server() as whole, fn.to_mock_server(current_function="child") as child:
        assert whole.test("/", []) == ["parent", "child"]
        assert child.test("/", []) == ["child"]


def test_invoke_without_a_url_uses_a_mock_that_it_keeps() -> None:
    calls: list[Any] = []

    def count(body: Any) -> int:
        calls.append(body)
        return len(calls)

    fn = new_function("f")
    fn.set_topology("flow").to(count, "s").respond()
    assert [fn.invoke("/", 1), fn.invoke("/", 2)] == [1, 2]


def test_invoke_of_a_served_function_goes_over_http() -> None:
    fn = new_function("f")
    fn.set_topology("flow").to(same, "s").respond()
    with fn.serve(http_port=0, block=False) as running:
        assert fn.url == running.url
        assert fn.invoke("/", {"a": (1, 2)}) == {"a": [1, 2]}
    assert fn.url is None


def test_validate_tells_what_is_wrong_without_running() -> None:
    fn = new_function("f")
    fn.set_topology("flow").to(name="s", handler="nothing_of_that_name").respond()
    problems = fn.validate()
    assert any("nothing_of_that_name" in p.message for p in problems)


def test_async_flow_without_responder_says_id_and_sync_flow_answers() -> None:
    for engine, expected in (("sync", 5), ("async", {"id": "e"})):
        fn = new_function("f")
        fn.set_topology("flow", engine=engine).to(same, "s")
        with fn.to_mock_server() as server:
            assert server.test("/", 5, event_id="e") == expected
