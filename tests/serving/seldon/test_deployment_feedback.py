"""Feedback to a deployment: to the predictor that answered, along the route, and what it is answered with."""

from __future__ import annotations

from typing import Any

import pytest
from node_peer import peer
from tree_kit import REQUEST, Add, Route, ask, deployment, function_of, hard, node, plain, predictor

from servegraph.graph.events import Event, Trigger
from servegraph.runtimes.seldon.deployment import function_from_deployment
from servegraph.serving.seldon import wire
from servegraph.serving.seldon.deployment_split import Split
from servegraph.serving.seldon.message import Feedback, Message, Meta

PREDICTIONS = "/api/v1.0/predictions"
FEEDBACK = "/api/v1.0/feedback"
MODEL = hard("m", "SIMPLE_MODEL")

# -- answers -----------------------------------------------------------------------------------------------------------


def test_feedback_of_a_root_that_takes_none_is_given_back() -> None:
    body = {"reward": 1, "request": REQUEST, "response": {"meta": {"puid": "p", "routing": {"x": 0}}}}
    with function_of(MODEL).to_mock_server() as server:
        response = server.test(FEEDBACK, body, get_body=False)
        data = wire.feedback_to_wire(Feedback(response=Message(meta=Meta("p")), reward=0.5))
        over_grpc = server.run(Event(data, None, None, None, "/feedback", None, Trigger("grpc", "grpc")), get_body=True)
    assert (response.status_code, response.headers["Seldon-Puid"]) == (200, "p")
    assert response.body == body
    assert (over_grpc.kind, over_grpc.meta.to_dict()) == (None, {"puid": "p"})


def test_answer_to_feedback_has_the_id_and_the_image_that_the_prediction_has() -> None:
    with function_of(node("a"), {"a": Add(1)}).to_mock_server() as server:
        answer = ask(server)
        response = server.test(FEEDBACK, {"request": REQUEST, "response": answer, "reward": 1}, get_body=False)
    assert response.body["meta"] == answer["meta"] == {"puid": answer["meta"]["puid"], "requestPath": {"a": "Add"}}
    assert response.headers["Seldon-Puid"] == answer["meta"]["puid"]


@pytest.mark.parametrize(
    ("body", "headers", "puid"),
    [
        ({"response": {"meta": {"puid": "of-response"}}, "request": {"meta": {"puid": "of-request"}}}, {},
         "of-response"),
        ({"request": {"meta": {"puid": "of-request"}}}, {"Seldon-Puid": "of-header"}, "of-request"),
        ({}, {"Seldon-Puid": "of-header"}, "of-header"),
        ({}, {}, None),
    ],
)  # fmt: skip
def test_feedback_of_a_remote_node_has_the_id_of_the_request(body: Any, headers: Any, puid: str | None) -> None:
    with peer() as (address, seen), function_of(node("a"), {"a": address}).to_mock_server() as server:
        answer = server.test(FEEDBACK, {**body, "reward": 1}, headers=headers, get_body=False)
    (asked,) = seen
    assert asked.path == "/send-feedback"
    assert asked.headers["seldon-puid"] == answer.headers["Seldon-Puid"] == answer.body["meta"]["puid"] != ""
    assert puid in (None, asked.headers["seldon-puid"])


@pytest.mark.parametrize("index", [1, 1.0, "1"])
def test_feedback_goes_along_a_route_that_is_written_as_protobuf_writes_numbers(index: Any) -> None:
    a, b = Add(), Add()
    graph = node("r", "ROUTER", node("a"), node("b"))
    with function_of(graph, {"r": Route(), "a": a, "b": b}).to_mock_server() as server:
        server.test(FEEDBACK, {"reward": 1, "response": {"meta": {"routing": {"r": index}}}})
    assert (len(a.feedback), len(b.feedback)) == (0, 1)


# -- predictors --------------------------------------------------------------------------------------------------------


def canary(images: tuple[str, str] = ("m:1", "m:1"), shares: tuple[int, int] = (50, 50)) -> Any:
    """A function with two predictors whose nodes have the same name, and the components of both."""
    predictors = []
    for name, image, traffic in zip(("main", "canary"), images, shares, strict=True):
        spec = {"containers": [{"name": "m", "image": image}]}
        predictors.append(predictor(node("m"), name, traffic=traffic, componentSpecs=[{"spec": spec}]))
    function = function_from_deployment(deployment(*predictors), components={"m": Add(0)})
    components = {"main": Add(1), "canary": Add(2)}
    for name, component in components.items():
        function.graph[name]["m"].class_args["component"] = component
    function.graph.class_args["seed"] = 5
    return function, components


def told(components: dict[str, Add]) -> tuple[int, int]:
    """How many feedbacks each of the two has got."""
    return len(components["main"].feedback), len(components["canary"].feedback)


def feedback_on(answer: Any, *without: str) -> dict[str, Any]:
    """Feedback on an answer whose meta has lost some of its parts."""
    meta = {k: v for k, v in answer["meta"].items() if k not in without}
    return {"request": REQUEST, "response": {**answer, "meta": meta}, "reward": 1}


@pytest.mark.parametrize(
    ("images", "without"), [(("m:1", "m:2"), ("puid",)), (("m:1", "m:1"), ()), (("m:1", "m:1"), ("requestPath",))]
)
def test_feedback_finds_the_canary_by_its_image_or_the_id(images: tuple[str, str], without: tuple[str, ...]) -> None:
    function, components = canary(images)
    with function.to_mock_server() as server:
        answers = [ask(server) for _ in range(20)]
        for answer in answers:
            server.test(FEEDBACK, feedback_on(answer, *without))
    asked = (len(components["main"].seen), len(components["canary"].seen))
    assert told(components) == asked
    assert min(asked) > 0


def test_answer_names_its_predictor_and_feedback_may_name_it() -> None:
    function, components = canary()
    with function.to_mock_server() as server:
        response = server.test(PREDICTIONS, REQUEST, headers={"Seldon-Predictor": "canary"}, get_body=False)
        assert response.headers["Seldon-Predictor"] == "canary"
        for _ in range(5):
            body = feedback_on(plain(response.body), "puid", "requestPath")
            server.test(FEEDBACK, body, headers={"Seldon-Predictor": "canary"})
    assert told(components) == (0, 5)
    with function_of(MODEL).to_mock_server() as server:
        assert "Seldon-Predictor" not in server.test(PREDICTIONS, REQUEST, get_body=False).headers


def test_feedback_that_nothing_tells_apart_is_split_by_traffic() -> None:
    function, components = canary(shares=(80, 20))
    with function.to_mock_server() as server:
        for _ in range(200):
            server.test(FEEDBACK, {"request": REQUEST, "reward": 1})
    main, other = told(components)
    assert main + other == 200
    assert 20 <= other <= 60


def test_images_that_are_gone_leave_the_nodes_to_tell_the_predictor() -> None:
    predictors = [predictor(node(name), f"p-{name}", traffic=50) for name in "ab"]
    a, b = Add(), Add()
    with function_from_deployment(deployment(*predictors), components={"a": a, "b": b}).to_mock_server() as server:
        for _ in range(8):
            server.test(FEEDBACK, {"response": {"meta": {"requestPath": {"b": "b:0.9"}}}, "reward": 1})
    assert (len(a.feedback), len(b.feedback)) == (0, 8)


def test_newest_answers_are_remembered_and_the_oldest_forgotten() -> None:
    function, _ = canary(shares=(0, 100))
    with function.to_mock_server() as server:
        predictors = server.plan.objects["deployment"].predictors
    split = Split(predictors, lambda: 0.5, remembered=10)
    for number in range(100):
        split.remember(str(number), predictors["main"])
    event = Event()
    found = [split.for_feedback(Feedback(), event, str(number)).name for number in range(100)]
    assert set(found[90:]) == {"main"}
    assert set(found[:80]) == {"canary"}
