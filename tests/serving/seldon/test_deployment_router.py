"""A deployment behind the executor's paths: predictions, feedback, traffic, shadow, and what it says of itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from tree_kit import (
    REQUEST,
    Add,
    AddAsync,
    Fail,
    Route,
    ask,
    deployment,
    function_of,
    hard,
    node,
    plain,
    predictor,
    rows,
)

from servegraph import jsoncodec
from servegraph.errors import GraphError
from servegraph.graph.events import Event, Trigger
from servegraph.runtimes.seldon.deployment import function_from_deployment
from servegraph.serving.seldon import wire
from servegraph.serving.seldon.message import Feedback, Message, Meta

MODEL = hard("m", "SIMPLE_MODEL")
PREDICTIONS = "/api/v1.0/predictions"


@pytest.mark.parametrize(
    "path",
    [
        PREDICTIONS,
        "/api/v0.1/predictions",
        f"/seldon/ns/tree{PREDICTIONS}",
        "/seldon/ns/tree/api/v0.1/predictions",
        f"/seldon/tree{PREDICTIONS}",
    ],
)
def test_predictions_are_at_the_inner_and_the_outer_paths(path: str) -> None:
    with function_of(MODEL).to_mock_server() as server:
        response = server.test(path, REQUEST, get_body=False)
    assert response.status_code == 200
    assert rows(response.body) == [0.1, 0.9, 0.5] or rows(response.body) == [[0.1, 0.9, 0.5]]
    assert response.headers["Seldon-Puid"] == response.body["meta"]["puid"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_puid_of_the_header_is_that_of_the_answer_unless_the_body_has_one() -> None:
    with function_of(MODEL).to_mock_server() as server:
        headers = {"Seldon-Puid": "from-header"}
        assert ask(server, headers=headers)["meta"]["puid"] == "from-header"
        body = {**REQUEST, "meta": {"puid": "from-body"}}
        response = server.test(PREDICTIONS, body, headers=headers, get_body=False)
    assert response.headers["Seldon-Puid"] == response.body["meta"]["puid"] == "from-body"


@pytest.mark.parametrize("puid", ["\u2603", "a\r\nSet-Cookie: x", "x" * 5000])
def test_puid_that_no_header_can_hold_is_in_the_body_alone(puid: str) -> None:
    with function_of(MODEL).to_mock_server() as server:
        response = server.test(PREDICTIONS, {**REQUEST, "meta": {"puid": puid}}, get_body=False)
    assert response.body["meta"]["puid"] == puid
    assert "Seldon-Puid" not in response.headers


def test_tags_that_are_arrays_pass_through_a_combiner() -> None:
    class Tagged(Add):
        def tags(self) -> dict[str, Any]:
            return {"mean": np.array([1.0, 2.0])}

    graph = node("sum", "COMBINER", node("a"), node("b"))
    with function_of(graph, {"sum": Tagged(), "a": Tagged(), "b": Tagged()}).to_mock_server() as server:
        assert ask(server)["meta"]["tags"] == {"mean": [1.0, 2.0]}


@pytest.mark.parametrize("namespace", ["default", "seldon", "model-namespace"])
def test_deployment_that_names_no_namespace_answers_in_any(namespace: str) -> None:
    spec = deployment(predictor(hard("m", "SIMPLE_MODEL")))
    del spec["metadata"]["namespace"]
    with function_from_deployment(spec).to_mock_server() as server:
        prefix = f"/seldon/{namespace}/tree/api"
        for version in ("v1.0", "v0.1"):
            assert rows(ask(server, path=f"{prefix}/{version}/predictions")) == [0.1, 0.9, 0.5]
        assert server.test(f"{prefix}/v1.0/metadata", method="GET")["name"] == "main"
        assert server.test(f"{prefix}/v1.0/feedback", {"response": {}, "reward": 1.0}) is not None
        for wrong in (f"/seldon/{namespace}/other/api/v1.0/predictions", f"/seldon/{namespace}/tree"):
            assert server.test(wrong, REQUEST, silent=True).status_code == 404


def test_deployment_that_names_its_namespace_answers_in_no_other() -> None:
    with function_from_deployment(deployment(predictor(hard("m", "SIMPLE_MODEL")))).to_mock_server() as server:
        assert server.test("/seldon/other/tree/api/v1.0/predictions", REQUEST, silent=True).status_code == 404


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        (PREDICTIONS, "GET", 405),
        ("/api/v1.0/feedback", "PUT", 405),
        ("/api/v1.0/metadata", "POST", 405),
        ("/api/v1.0/nothing", "GET", 404),
        ("/api/v3/predictions", "POST", 404),
        ("/seldon/other/tree/api/v1.0/predictions", "POST", 404),
        ("/seldon/ns/api/v1.0/predictions", "POST", 404),
        ("/api/v1.0/status/nobody", "GET", 404),
        ("/api/v1.0/metadata/nobody", "GET", 404),
    ],
)
def test_wrong_paths_and_methods_are_told_in_seldons_envelope(path: str, method: str, status: int) -> None:
    with function_of(MODEL).to_mock_server() as server:
        body = REQUEST if method != "GET" else None
        response = server.test(path, body, method=method, silent=True)
    assert response.status_code == status
    assert response.body["status"]["code"] == -1
    assert (response.headers.get("Allow") is not None) == (status == 405)


@pytest.mark.parametrize(
    "path",
    [
        f"{PREDICTIONS}/",
        "/api/v1.0/feedback/",
        "/api/v1.0/nothing",
        "/api/v1.0/doc/more",
        "/seldon/other/tree/ready",
        "/x",
    ],
)
def test_path_that_is_not_there_is_told_alike_for_each_method(path: str) -> None:
    with function_of(MODEL).to_mock_server() as server:
        got = server.test(path, method="GET", silent=True)
        posted = server.test(path, REQUEST, method="POST", silent=True)
    assert got.status_code == posted.status_code == 404
    where = f"{PREDICTIONS} and /seldon/ns/tree{PREDICTIONS}"
    info = f"no such path: {path}; predictions are at {where}"
    assert got.body["status"]["info"] == posted.body["status"]["info"] == info


@pytest.mark.parametrize(
    ("body", "content_type", "why"),
    [
        (
            jsoncodec.dumps(REQUEST),
            "application/x-www-form-urlencoded",
            "which curl takes by itself, and the form has no",
        ),
        (jsoncodec.dumps(REQUEST), "text/plain; charset=utf-8", "the content type is text/plain; send it with"),
        (jsoncodec.dumps(REQUEST), "", "send it with the header Content-Type: application/json"),
        (b"null", "application/json", "the body is empty or null"),
        (b"", "application/json", "the body is empty or null"),
        (b"", "", "there is no body, or it has no content type"),
    ],
)
def test_request_without_json_is_told_its_content_type(body: bytes, content_type: str, why: str) -> None:
    with function_of(MODEL).to_mock_server() as server:
        for path in (PREDICTIONS, "/api/v1.0/feedback"):
            answer = server.test(path, body, method="POST", content_type=content_type, silent=True)
            assert answer.status_code == 400
            assert answer.body["status"]["info"].startswith("Can't find JSON in data: ")
            assert why in answer.body["status"]["info"]


def test_json_in_the_field_of_a_form_is_read() -> None:
    body = urlencode({"json": jsoncodec.dumps(REQUEST).decode()}).encode()
    with function_of(MODEL).to_mock_server() as server:
        answer = server.test(PREDICTIONS, body, method="POST", content_type="application/x-www-form-urlencoded")
    assert answer["meta"]["requestPath"] == {"m": "SIMPLE_MODEL"}


def test_pages_tell_readiness_state_and_metadata() -> None:
    class Described(Add):
        def init_metadata(self) -> dict[str, Any]:
            return {"versions": ["2"], "inputs": [{"name": "x"}], "outputs": [{"name": "y"}]}

    graph = node("t", "TRANSFORMER", node("pick", "ROUTER", node("a")))
    components = {"t": Described(), "pick": Route(), "a": Described()}
    with function_of(graph, components).to_mock_server() as server:
        for path in ("/ready", "/live", "/seldon/ns/tree/ready"):
            assert server.test(path, get_body=False).body in (None, "")
        assert server.test("/api/v1.0/health/status")["data"]["ndarray"] == ["healthy"]
        assert server.test("/api/v1.0/status")["data"]["ndarray"] == ["healthy"]
        assert server.test("/api/v0.1/status/a")["strData"] == "healthy"
        assert server.test("/api/v1.0/metadata/a")["versions"] == ["2"]
        whole = server.test("/api/v1.0/metadata")
        assert "/seldon/ns/tree/api/v1.0/predictions" in server.test("/api/v1.0/doc/")["paths"]
    assert whole["name"] == "main"
    assert set(whole["models"]) == {"t", "pick", "a"}
    assert whole["graphinputs"] == [{"name": "x"}]
    assert whole["graphoutputs"] == [{"name": "y"}]


def test_request_that_fails_has_its_id_in_the_header_too() -> None:
    with function_of(node("a"), {"a": Fail()}).to_mock_server() as server:
        drawn = server.test(PREDICTIONS, REQUEST, silent=True)
        given = server.test(PREDICTIONS, {**REQUEST, "meta": {"puid": "from-body"}}, silent=True)
    assert len(drawn.headers["Seldon-Puid"]) == 26
    assert given.headers["Seldon-Puid"] == "from-body"


def test_feedback_that_is_none_is_refused() -> None:
    with function_of(MODEL).to_mock_server() as server:
        response = server.test("/api/v1.0/feedback", {"reward": "much"}, silent=True)
    assert (response.status_code, response.body["status"]["reason"]) == (400, "MICROSERVICE_BAD_DATA")


# -- traffic -----------------------------------------------------------------------------------------------------------


def split(*shares: int, **more: Any) -> Any:
    predictors = [predictor(node(f"n{i}"), f"p{i}", traffic=share) for i, share in enumerate(shares)]
    components = {f"n{i}": Add(i, f"n{i}") for i in range(len(shares))}
    predictors += more.pop("further", [])
    return function_from_deployment(deployment(*predictors, **more), components=components | more.get("components", {}))


def test_requests_are_split_by_traffic() -> None:
    function = split(75, 25)
    function.graph.class_args["seed"] = 7
    with function.to_mock_server() as server:
        found = Counter(next(iter(ask(server)["meta"]["requestPath"])) for _ in range(400))
    assert found.total() == 400
    assert 260 <= found["n0"] <= 340


def test_predictor_without_traffic_gets_no_request() -> None:
    with split(100, 0).to_mock_server() as server:
        assert {next(iter(ask(server)["meta"]["requestPath"])) for _ in range(50)} == {"n0"}
        answer = ask(server, headers={"Seldon-Predictor": "p1"})
        assert list(answer["meta"]["requestPath"]) == ["n1"]
        response = server.test(PREDICTIONS, REQUEST, headers={"Seldon-Predictor": "p7"}, silent=True)
    assert response.status_code == 400
    assert (
        "there is no predictor 'p7'; did you mean 'p0'" in response.body["status"]["info"]
        or "valid: p0, p1" in (response.body["status"]["info"])
    )


def test_same_seed_makes_the_same_split() -> None:
    def ways() -> list[str]:
        function = split(50, 50)
        function.graph.class_args["seed"] = 3
        with function.to_mock_server() as server:
            return [next(iter(ask(server)["meta"]["requestPath"])) for _ in range(20)]

    assert ways() == ways()


def test_feedback_goes_to_the_predictor_that_answered() -> None:
    function = split(50, 50)
    with function.to_mock_server() as server:
        for _ in range(10):
            server.test("/api/v1.0/feedback", {"request": REQUEST, "response": ask(server), "reward": 1})
        units = {k.rpartition("/")[2]: v for k, v in server.plan.objects.items() if hasattr(v, "node")}
        told = {name: len(unit.step.user_object.feedback) for name, unit in units.items()}
        asked = {name: len(unit.step.user_object.seen) for name, unit in units.items()}
    assert told == asked
    assert sum(told.values()) == 10


# -- shadow ------------------------------------------------------------------------------------------------------------


def shadowed(dark: Any) -> Any:
    predictors = [predictor(node("a"), "main"), predictor(node("dark"), "shadow", shadow=True)]
    return function_from_deployment(deployment(*predictors), components={"a": Add(1), "dark": dark})


def test_shadow_gets_a_copy_and_changes_no_answer() -> None:
    class Dark:
        def __init__(self) -> None:
            self.seen: list[Any] = []

        async def predict(self, X: Any, names: Any) -> Any:
            X += 1000
            self.seen.append(np.array(X))
            return X

    dark = Dark()
    with shadowed(dark).to_mock_server() as server:
        assert [rows(ask(server)) for _ in range(3)] == [[[2.0, 3.0]]] * 3
    # The server has waited for its shadow when it is closed.
    assert [x.tolist() for x in dark.seen] == [[[1001.0, 1002.0]]] * 3


def test_shadow_with_traffic_gets_that_percentage() -> None:
    dark = AddAsync(1)
    function = shadowed(dark)
    function.graph["shadow"].class_args["traffic"] = 20
    function.graph.class_args["seed"] = 3
    with function.to_mock_server() as server:
        for _ in range(200):
            ask(server)
        dropped = server.plan.objects["deployment"].shadows_dropped
    assert 20 <= len(dark.seen) + dropped <= 60


def test_failing_shadow_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    with shadowed(Fail()).to_mock_server() as server:
        assert rows(ask(server)) == [[2.0, 3.0]]
    assert "shadow shadow: request" in caplog.text
    assert "the model is broken" in caplog.text


def test_shadow_that_is_too_far_behind_misses_requests() -> None:
    class Stuck:
        def __init__(self) -> None:
            self.release = asyncio.Event()

        async def predict(self, X: Any, names: Any) -> Any:
            await self.release.wait()
            return X

    stuck = Stuck()
    with shadowed(stuck).to_mock_server() as server:
        for _ in range(66):
            ask(server)
        assert server.plan.objects["deployment"].shadows_dropped == 2
        server._own_loop().call_soon_threadsafe(stuck.release.set)


# -- messages ----------------------------------------------------------------------------------------------------------


def test_grpc_events_carry_protobuf_in_and_messages_out() -> None:
    trigger = Trigger("grpc", "grpc")
    graph = node("pick", "ROUTER", node("a"), node("b"))
    with function_of(graph, {"pick": Route(1), "a": Add(1), "b": Add(2)}).to_mock_server() as server:
        data = wire.message_to_wire(Message("data", np.array([[1.0]]), encoding="tensor", meta=Meta("p")))
        reply = server.run(Event(data, None, None, None, "/predict", None, trigger), get_body=True)
        assert isinstance(reply, Message)
        assert reply.value.tolist() == [[3.0]]
        assert (reply.meta.puid, reply.meta.routing) == ("p", {"pick": 1})
        feedback = wire.feedback_to_wire(Feedback(response=Message(meta=Meta("p", routing={"pick": 1})), reward=0.5))
        server.run(Event(feedback, None, None, None, "/send-feedback", None, trigger))
        unit = server.plan.objects["deployment/main/pick/b"]
        assert unit.step.user_object.feedback == [(0.5, None)]


@pytest.mark.parametrize(
    "payload",
    [{"strData": "hello"}, {"jsonData": {"a": [1, 2]}}, {"binData": "aGk="}, {"data": {"ndarray": [["x", 1]]}}],
)
def test_every_payload_passes_through_a_tree(payload: dict[str, Any]) -> None:
    class Same:
        def predict(self, X: Any, names: Any) -> Any:
            return X

        transform_input = predict

    with function_of(node("t", "TRANSFORMER", node("m")), {"t": Same(), "m": Same()}).to_mock_server() as server:
        answer = ask(server, payload)
    (kind,) = payload
    if kind == "data":
        assert rows(answer) == [["x", "1"]]
    else:
        assert answer[kind] == payload[kind]


def test_low_level_methods_get_whole_messages_with_the_meta_so_far() -> None:
    class Raw:
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def predict_raw(self, message: Any) -> Any:
            self.seen.append(plain(message))
            return {"jsonData": {"raw": True}, "meta": {"tags": {"raw": 1}, "metrics": []}}

    raw = Raw()
    with function_of(node("t", "TRANSFORMER", node("m")), {"t": Add(1, "t"), "m": raw}).to_mock_server() as server:
        answer = ask(server)
    assert answer["jsonData"] == {"raw": True}
    assert answer["meta"]["tags"] == {"t": 1, "last": "t", "raw": 1}
    (seen,) = raw.seen
    assert seen["data"]["ndarray"] == [[2.0, 3.0]]
    assert seen["meta"]["tags"] == {"t": 1, "last": "t"}
    assert seen["meta"]["puid"] == answer["meta"]["puid"]


def test_names_that_a_component_learns_when_it_loads_are_those_of_its_answers() -> None:
    class Learns:
        def load(self) -> None:
            self.class_names = ["yes", "no"]

        def predict(self, X: Any, names: Any) -> Any:
            return X

    with function_of(node("m"), {"m": Learns()}).to_mock_server() as server:
        assert ask(server)["data"]["names"] == ["yes", "no"]


# -- building ----------------------------------------------------------------------------------------------------------


def test_deployment_needs_a_predictor_and_a_predictor_one_graph() -> None:
    function = function_of(MODEL)
    function.graph["main"].class_args["shadow"] = True
    with pytest.raises(GraphError, match="deployment 'tree' has no predictor that answers"):
        function.to_mock_server()
    function = function_of(MODEL)
    function.graph["main"].add_route("second", class_name="servegraph.serving.seldon.unit.SeldonUnit")
    with pytest.raises(GraphError):
        function.to_mock_server()
    function = function_of(MODEL)
    function.graph.add_route("other", handler=len)
    with pytest.raises(GraphError, match="route 'other' of a deployment is a SeldonPredictor"):
        function.to_mock_server()
