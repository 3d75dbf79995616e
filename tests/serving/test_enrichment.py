"""Enrichment routers in a running graph."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import servegraph
from servegraph.errors import GraphError, RequestFailedError
from servegraph.graph.events import Event
from servegraph.runtimes.mock import MockServer
from servegraph.serving import DictSource, EnrichmentModelRouter, EnrichmentVotingEnsemble, V2ModelServer

USERS: dict[int, dict[str, Any]] = {7: {"age": 30, "score": 0.5}, 8: {"age": None, "score": 1.5}}


class Shows(V2ModelServer):
    def load(self) -> None:
        pass

    def predict(self, request: Any) -> Any:
        return [str(row) for row in request["inputs"]]


def routed(class_name: Any = EnrichmentModelRouter, **arguments: Any) -> MockServer:
    fn = servegraph.new_function("enriched", kind="serving")
    arguments.setdefault("feature_source", DictSource(USERS, "user"))
    fn.set_topology("router", class_name, **arguments)
    for key in ("a", "b"):
        fn.add_model(key, class_name=Shows, model_path=".")
    return fn.to_mock_server()


def refused(server: MockServer, body: Any) -> RequestFailedError:
    with pytest.raises(RequestFailedError) as caught:
        server.test("/v2/models/a/infer", body)
    return caught.value


@pytest.mark.parametrize("class_name", [EnrichmentModelRouter, EnrichmentVotingEnsemble])
def test_enrichment_gives_the_models_rows_of_features(class_name: Any) -> None:
    with routed(class_name, impute_policy={"age": 33}) as server:
        body = {"inputs": [{"user": 8}, {"user": 7}]}
        answer = server.test("/", body)
    assert answer["outputs"] == ["[33, 1.5]", "[30, 0.5]"]
    assert body == {"inputs": [{"user": 8}, {"user": 7}]}


def test_enrichment_with_statistics_fills_what_is_missing_and_whole_strangers() -> None:
    with routed(impute_policy={"*": "$mean"}) as server:
        answer = server.test("/v2/models/b/infer", {"inputs": [{"user": 8}, {"user": 99}]})
    assert answer["outputs"] == ["[30.0, 1.5]", "[30.0, 1.0]"]


def test_enrichment_without_a_policy_hands_a_missing_value_on_and_refuses_a_stranger() -> None:
    with routed() as server:
        assert server.test("/", {"inputs": [{"user": 8}]})["outputs"] == ["[None, 1.5]"]
        error = refused(server, {"inputs": [{"user": 7}, {"user": 99}]})
    assert error.status == 422
    assert "$.inputs[1]: there are no features for this entity" in str(error)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"inputs": [7]}, "an object of key names"),
        ({"inputs": [{"usr": 7}]}, "missing: user"),
        ({"inputs": [{"user": {}}]}, "dict is no key"),
        ({"inputs": "x"}, "'inputs' must be a list"),
        ({"inputs": [{"name": "x", "shape": [1], "datatype": "INT64", "data": [7]}]}, "not as tensors"),
    ],
)
def test_enrichment_of_a_wrong_request_is_a_422(body: Any, text: str) -> None:
    with routed() as server:
        error = refused(server, body)
    assert error.status == 422
    assert text in str(error)


def test_enrichment_leaves_questions_about_models_alone() -> None:
    with routed() as server:
        assert server.test("/v2/models", method="GET") == {"models": ["a", "b"]}
        assert server.test("/v2/models/a", method="GET")["name"] == "a"
        assert b"ready" in server.test("/v2/models/a/ready", method="GET")


def test_enrichment_by_a_function_names_the_features_that_it_does_not() -> None:
    def lookup(entities: list[dict[str, Any]]) -> list[list[Any]]:
        return [[e["x"], None] for e in entities]

    with routed(feature_source=lookup, features=["x", "y"], impute_policy={"y": -1}) as server:
        assert server.test("/", {"inputs": [{"x": 1}]})["outputs"] == ["[1, -1]"]
    with routed(feature_source=lookup) as server:
        assert server.test("/", {"inputs": [{"x": 1}]})["outputs"] == ["[1, None]"]


def test_enrichment_by_a_coroutine_that_waits_runs_on_an_event_loop() -> None:
    async def lookup(entities: list[dict[str, Any]]) -> list[Any]:
        await asyncio.sleep(0)
        return [[1] for _ in entities]

    with routed(feature_source=lookup) as server:
        assert server.test("/", {"inputs": [{"x": 1}]})["outputs"] == ["[1]"]


def test_enrichment_by_a_source_that_blocks_never_runs_on_the_event_loop() -> None:
    seen: list[threading.Thread] = []

    def lookup(entities: list[dict[str, Any]]) -> list[Any]:
        seen.append(threading.current_thread())
        return [[1] for _ in entities]

    async def ask() -> Any:
        return await server.run_async(Event({"inputs": [{"x": 1}]}, method="POST"))

    with routed(feature_source=lookup) as server:
        assert asyncio.run(ask())["outputs"] == ["[1]"]
    assert seen[0] is not threading.current_thread()


def test_enrichment_whose_source_gives_the_wrong_number_of_rows_is_a_500() -> None:
    with routed(feature_source=lambda entities: []) as server:
        error = refused(server, {"inputs": [{"x": 1}]})
    assert error.status == 500
    assert "0 rows for 1 entities" in str(error)


def test_enrichment_without_a_source_says_what_is_needed() -> None:
    with pytest.raises(GraphError, match=r"'store://v' names a feature store's vector; .* in feature_source"):
        routed(feature_source=None, feature_vector_uri="store://v")


def test_enrichment_with_an_unknown_argument_is_refused() -> None:
    with pytest.raises(GraphError, match="did you mean 'impute_policy'"):
        routed(imputepolicy={})
