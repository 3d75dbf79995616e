"""The status page of a node: what its component says of its health, here or on another server."""

from __future__ import annotations

from typing import Any

import pytest
from node_peer import peer
from tree_kit import Add, AddAsync, ask, deployment, function_of, hard, node, plain, predictor, rows

from servegraph.runtimes.seldon.deployment import function_from_deployment
from servegraph.serving.seldon.errors import SeldonMicroserviceException


class Patient(Add):
    """Says how it is: well, or not."""

    def __init__(self, says: Any) -> None:
        super().__init__()
        self.says = says

    def health_status(self) -> Any:
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


class AsyncPatient(AddAsync):
    async def health_status(self) -> Any:
        return ["as", "well"]


class RawPatient(Add):
    def health_status_raw(self) -> Any:
        return {"jsonData": {"temperature": 37}}


def test_status_of_a_node_is_what_its_component_says() -> None:
    models = [node("a"), hard("m", "SIMPLE_MODEL"), node("raw"), node("silent")]
    graph = node("t", "TRANSFORMER", node("c", "COMBINER", *models))
    components = {
        "t": Patient([1, 2]), "c": Patient("fine"), "a": AsyncPatient(), "raw": RawPatient(), "silent": Add(),
    }  # fmt: skip
    with function_of(graph, components).to_mock_server() as server:
        found = {name: plain(server.test(f"/api/v1.0/status/{name}")) for name in ("t", "c", "a", "m", "raw", "silent")}
    assert rows(found["t"]) == [1, 2]
    assert found["c"]["strData"] == "fine"
    assert found["a"]["data"]["ndarray"] == ["as", "well"]
    assert found["raw"] == {"jsonData": {"temperature": 37}}
    assert found["m"]["strData"] == found["silent"]["strData"] == "healthy"


@pytest.mark.parametrize(
    ("raised", "status", "reason", "info"),
    [
        (ValueError("no model"), 500, "MICROSERVICE_INTERNAL_ERROR", "node 'a': no model"),
        (SeldonMicroserviceException("cold", 503, reason="COLD"), 503, "COLD", "node 'a': cold"),
    ],
)
def test_node_that_is_not_well_says_so_on_its_status_page(
    raised: Exception, status: int, reason: str, info: str
) -> None:
    with function_of(node("a"), {"a": Patient(raised)}).to_mock_server() as server:
        answer = server.test("/api/v1.0/status/a", silent=True)
        assert rows(ask(server)) == [[2.0, 3.0]]
    assert answer.status_code == status
    assert (answer.body["status"]["reason"], answer.body["status"]["info"]) == (reason, info)


def test_status_page_asks_the_node_of_the_predictor_that_a_header_names() -> None:
    predictors = [predictor(node("m"), "main", traffic=90), predictor(node("m"), "canary", traffic=10)]
    function = function_from_deployment(deployment(*predictors), components={"m": Patient("main")})
    function.graph["canary"]["m"].class_args["component"] = Patient("canary")
    with function.to_mock_server() as server:
        assert server.test("/api/v1.0/status/m")["strData"] == "main"
        headers = {"Seldon-Predictor": "canary"}
        assert server.test("/api/v1.0/status/m", headers=headers)["strData"] == "canary"
        failed = server.test("/api/v1.0/status/nobody", headers=headers, silent=True)
        assert (failed.status_code, failed.headers["Seldon-Predictor"]) == (404, "canary")


def test_status_of_a_rest_node_is_what_it_says_itself() -> None:
    answers: list[Any] = [(200, {"strData": "well", "more": 1}), (503, {"why": "warming up"})]
    with (
        peer(lambda path: answers.pop(0)) as (address, seen),
        function_of(node("a"), {"a": address}).to_mock_server() as server,
    ):
        assert server.test("/api/v1.0/status/a", headers={"X-Mine": "1"}) == {"strData": "well", "more": 1}
        ill = server.test("/api/v1.0/status/a", silent=True)
    assert (ill.status_code, ill.body) == (503, {"why": "warming up"})
    assert [(asked.path, asked.headers["x-mine"]) for asked in seen[:1]] == [("/health/status", "1")]
