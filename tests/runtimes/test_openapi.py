"""The OpenAPI document and its page, of real functions."""

from __future__ import annotations

import html
import re
import shlex
import urllib.request
from pathlib import Path
from typing import Any

import servegraph
from servegraph import jsoncodec
from servegraph.runtimes.function import ServingFunction
from servegraph.runtimes.openapi import openapi
from servegraph.serving.model_metadata import save_model_spec


class Plain(servegraph.V2ModelServer):
    example_inputs = ((1, 2),)

    def load(self) -> None:
        if self.model_path:
            self.get_model(".txt")

    def predict(self, request: Any) -> Any:
        return [sum(row) for row in request["inputs"]]


class Rich(Plain):
    def explain(self, request: Any) -> Any:
        return ["because" for _ in request["inputs"]]

    def op_reset(self, event: Any) -> Any:
        return {"reset": True}


def router(*models: tuple[str, Any, dict[str, Any]], router_class: Any = None) -> ServingFunction:
    fn = servegraph.new_function("shown")
    fn.set_topology("router", router_class)
    for key, kind, arguments in models:
        fn.add_model(key, class_name=kind, **arguments)
    return fn


def paths(fn: ServingFunction) -> dict[str, set[str]]:
    with fn.to_mock_server() as server:
        return {path: set(verbs) for path, verbs in openapi(server)["paths"].items()}


def test_openapi_lists_each_operation_that_a_model_answers_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_text("")
    save_model_spec(tmp_path, "model.txt", inputs=["a", "b"])
    found = paths(router(("plain", Plain, {}), ("rich:v1", Rich, {"model_path": str(tmp_path)})))
    plain = {path.rpartition("/")[2] for path in found if path.startswith("/v2/models/plain/")}
    rich = {path.rpartition("/")[2] for path in found if path.startswith("/v2/models/rich/versions/v1/")}
    assert plain == {"ready", "infer"}
    assert rich == {"ready", "infer", "infer_dict", "explain", "reset"}


def test_openapi_of_an_ensemble_has_the_path_of_the_vote() -> None:
    fn = router(("a", Plain, {}), ("b", Plain, {}), router_class="servegraph.serving.VotingEnsemble")
    found = paths(fn)
    assert found["/v2/models/infer"] == {"post"}
    assert found["/v2/models/VotingEnsemble"] == {"get"}
    assert found["/v2/models/a/infer"] == {"post"}


def shown_line(url: str) -> list[str]:
    """The page's example request, as a shell reads it."""
    with urllib.request.urlopen(f"{url}/docs") as answer:
        page = answer.read().decode()
    match = re.search(r"<pre>(.*?)</pre>", page, re.DOTALL)
    assert match is not None, page
    return shlex.split(html.unescape(match.group(1)))


def asked(line: list[str]) -> Any:
    assert line[:2] == ["curl", "-s"]
    body = line[line.index("-d") + 1].encode()
    request = urllib.request.Request(line[2], body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return jsoncodec.loads(answer.read())


def test_docs_page_shows_a_request_that_works() -> None:
    with router(("plain", Plain, {})).serve(http_port=0, block=False) as running:
        line = shown_line(running.url)
        assert line[2] == f"{running.url}/v2/models/plain/infer"
        assert asked(line)["outputs"] == [3]


def test_docs_page_of_a_flow_shows_its_example_body() -> None:
    fn = servegraph.new_function("flow")
    fn.set_topology("flow").to(name="twice", handler="(event['n'] * 2)").respond()
    fn.spec.parameters["example_body"] = {"n": 4}
    with fn.serve(http_port=0, block=False) as running:
        assert asked(shown_line(running.url)) == 8


def test_docs_page_writes_the_host_of_a_request_as_text() -> None:
    with router(("plain", Plain, {})).serve(http_port=0, block=False) as running:
        request = urllib.request.Request(f"{running.url}/docs", headers={"Host": "<script>alert(1)</script>"})
        with urllib.request.urlopen(request) as answer:
            assert b"<script>" not in answer.read()
