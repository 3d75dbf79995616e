from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import servegraph
from servegraph.errors import GraphError, RequestFailedError
from servegraph.graph.events import Event, Response
from servegraph.runtimes.mock import MockServer
from servegraph.serving.routers import BaseModelRouter, ModelRouter, _natural


class Echo(servegraph.V2ModelServer):
    """Answers with what it was called with."""

    def load(self) -> None:
        pass

    def preprocess(self, request: Any, operation: str) -> Any:
        return request

    def validate(self, request: Any, operation: str) -> Any:
        return request

    def predict(self, request: Any) -> Any:
        return {"by": f"{self.name}:{self.version}", "op": "infer", "got": request}

    def explain(self, request: Any) -> Any:
        return {"by": f"{self.name}:{self.version}", "op": "explain"}


def serve(*keys: str, class_name: Any = None, **options: Any) -> MockServer:
    fn = servegraph.new_function("f")
    fn.set_topology("router", class_name, **options)
    for key in keys:
        fn.add_model(key, class_name=Echo)
    return fn.to_mock_server()


@pytest.fixture(scope="module")
def server() -> Iterator[MockServer]:
    with serve("first", "iris:v9", "iris:v10", "mixed", "mixed:v1") as made:
        yield made


def by(answer: Any) -> tuple[str, str]:
    return answer["outputs"]["by"], answer["outputs"]["op"]


def status(server: MockServer, path: str, body: Any, content_type: str | None = None) -> tuple[int, str]:
    answer = server.test(path, body, content_type=content_type, silent=True, get_body=False)
    assert isinstance(answer, Response)
    return answer.status_code, answer.body["detail"] if answer.status_code >= 400 else ""


# -- grammar ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "model", "operation"),
    [
        ("/", {"inputs": []}, "first:", "infer"),
        ("", {"inputs": []}, "first:", "infer"),
        ("/", {"model": "mixed"}, "mixed:", "infer"),
        ("/", {"model": "iris"}, "iris:v10", "infer"),
        ("/", {"model": "iris:v9"}, "iris:v9", "infer"),
        ("/", {"model": "iris", "operation": "explain"}, "iris:v10", "explain"),
        ("/v2/models/first", {}, "first:", "infer"),
        ("/v2/models/first/", {}, "first:", "infer"),
        ("/v2/models/first/infer", {}, "first:", "infer"),
        ("/v2/models/first/infer/", {}, "first:", "infer"),
        ("/v2/models/first/predict", {}, "first:", "infer"),
        ("/v2/models/first/explain", {}, "first:", "explain"),
        ("/v2/models/first/infer", {"operation": "explain"}, "first:", "explain"),
        ("/v2/models/iris/infer", {}, "iris:v10", "infer"),
        ("/v2/models/iris/versions/v9/infer", {}, "iris:v9", "infer"),
        ("/v2/models/iris/versions/v9", {}, "iris:v9", "infer"),
        ("/v2/models/iris/versions/latest/infer", {}, "iris:v10", "infer"),
        ("/v2/models/iris:v9/infer", {}, "iris:v9", "infer"),
        ("/v2/models/mixed/infer", {}, "mixed:", "infer"),
        ("/v2/models/mixed/versions/v1/infer", {}, "mixed:v1", "infer"),
        ("/v2/models/mixed/versions/latest/infer", {}, "mixed:v1", "infer"),
        ("/v2/models/first/versions/latest/infer", {}, "first:", "infer"),
        ("/v2/models/iris/infer", {"model": "first"}, "iris:v10", "infer"),
    ],
)
def test_path_and_body_name_model_version_and_operation(
    server: MockServer, path: str, body: Any, model: str, operation: str
) -> None:
    for _ in range(2):  # the second time by the paths that are known
        assert by(server.test(path, dict(body), method="POST")) == (model, operation)


@pytest.mark.parametrize("path", ["/v2/models", "/v2/models/"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_prefix_alone_lists_the_models(server: MockServer, path: str, method: str) -> None:
    answer = server.test(path, {} if method == "POST" else None, method=method)
    assert answer == {"models": ["first", "iris:v9", "iris:v10", "mixed", "mixed:v1"]}


@pytest.mark.parametrize("path", ["/", "", "/v2/health", "/v2/health/anything"])
def test_router_answers_for_itself_by_get(server: MockServer, path: str) -> None:
    assert server.test(path, method="GET") == {"name": "ModelRouter", "version": "v2", "extensions": []}


def test_get_on_a_model_gives_its_metadata_and_readiness(server: MockServer) -> None:
    assert server.test("/v2/models/iris", method="GET")["version"] == "v10"
    assert b"is ready" in server.test("/v2/models/iris/ready", method="GET")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v2/models/irs/infer", ["no model 'irs'", "iris:v10", "first"]),
        ("/v2/models/iris/versions/v7/infer", ["no version 'v7'", "v10, v9", "latest"]),
        ("/v2/models/first/versions/v1/infer", ["no version 'v1'", "latest"]),
        ("/v2/models/iris/versions", ["followed by a version"]),
        ("/v2/models/iris/versions/", ["followed by a version"]),
        ("/v2/modelsXXfirst/infer", ["no such path", "/v2/models/MODEL"]),
        ("/v1/models/first", ["no such path"]),
        ("/other", ["no such path"]),
        ("/v2/models/first/nope", ["no operation 'nope'", "infer"]),
        ("/v2/models/first/infer/more", ["no operation"]),
    ],
)
def test_unknown_path_model_or_version_is_404_and_lists_what_there_is(
    server: MockServer, path: str, words: list[str]
) -> None:
    code, detail = status(server, path, {"inputs": []})
    assert code == 404
    assert [w for w in words if w not in detail] == []


def test_unknown_model_of_any_length_gives_a_short_message(server: MockServer) -> None:
    for path, body in (("/v2/models/" + "x" * 9000, {}), ("/", {"model": "x" * 9000}), ("/" + "y" * 9000, {})):
        code, detail = status(server, path, body)
        assert code == 404
        assert len(detail) < 500


@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=30), st.booleans())
def test_any_path_gives_an_answer_or_404(server: MockServer, tail: str, below: bool) -> None:
    path = f"/v2/models/{tail}" if below else f"/{tail}"
    code, _ = status(server, path, {"inputs": []})
    assert code in (200, 404, 405)


def test_router_without_models_says_so() -> None:
    with serve() as empty:
        assert status(empty, "/", {"inputs": []}) == (404, "router 'ModelRouter' has no models")
        assert empty.test("/v2/models", method="GET") == {"models": []}


@pytest.mark.parametrize(
    ("versions", "latest"),
    [
        (["v1", "v2"], "v2"),
        (["v9", "v10"], "v10"),
        (["1.9.0", "1.10.0"], "1.10.0"),
        (["a", "b"], "b"),
        (["v²", "v1"], "v²"),
    ],
)
def test_versions_are_ordered_as_people_count(versions: list[str], latest: str) -> None:
    assert sorted(versions, key=_natural)[-1] == latest
    with serve(*(f"m:{v}" for v in versions)) as made:
        assert by(made.test("/v2/models/m/infer", {}))[0] == f"m:{latest}"


def test_default_model_and_default_versions_are_taken() -> None:
    with serve("a", "b:v1", "b:v2", default="b", default_versions={"b": "v1"}) as made:
        assert by(made.test("/", {}))[0] == "b:v1"
        assert by(made.test("/v2/models/b/infer", {}))[0] == "b:v1"
        assert by(made.test("/v2/models/b/versions/latest/infer", {}))[0] == "b:v2"


@pytest.mark.parametrize(
    "options", [{"default": "c"}, {"default_versions": {"b": "v3"}}, {"default_versions": {"c": "v1"}}]
)
def test_default_that_is_not_there_is_found_when_the_graph_is_built(options: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=r"no model|no version"):
        serve("a", "b:v1", "b:v2", **options)


def test_other_prefix_and_protocol_are_taken() -> None:
    with serve("a", url_prefix="/my/models/", protocol="v1") as made:
        assert by(made.test("/my/models/a/infer", {}))[0] == "a:"
        assert made.test("/v1/health", method="GET")["version"] == "v1"
        assert status(made, "/v1/models/a/infer", {})[0] == 404


# -- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b'{"inputs": [1]}', '{"inputs": [1]}'])
@pytest.mark.parametrize("kind", [None, "application/octet-stream", "text/plain"])
def test_json_body_of_any_media_type_is_read(server: MockServer, body: Any, kind: str | None) -> None:
    answer = server.test("/v2/models/first/infer", body, content_type=kind)
    assert answer["outputs"]["got"] == {"inputs": [1]}


def test_list_body_reaches_the_model(server: MockServer) -> None:
    assert server.test("/v2/models/first/infer", [1, 2])["outputs"]["got"] == [1, 2]


@pytest.mark.parametrize("protocol", ["v2", "v1"])
def test_image_body_becomes_one_input(protocol: str) -> None:
    with serve("a", url_prefix="/v2/models", protocol=protocol) as made:
        answer = made.test("/v2/models/a/infer", b"\x89PNG...", content_type="image/png; q=1")
        (image,) = answer["outputs"]["got"]["instances" if protocol == "v1" else "inputs"]
        assert isinstance(image, io.BytesIO)
        assert image.read() == b"\x89PNG..."


@pytest.mark.parametrize("body", [b"\xff\x00", b"not json", "not json"])
def test_body_that_is_neither_json_nor_an_image_is_refused(server: MockServer, body: Any) -> None:
    code, detail = status(server, "/v2/models/first/infer", body, content_type="application/octet-stream")
    assert code == 415
    assert "not application/octet-stream" in detail
    code, detail = status(server, "/v2/models/first/infer", body)
    assert code == 400
    assert "neither JSON nor an image" in detail


def test_data_url_in_a_body_is_fetched_by_nobody(server: MockServer) -> None:
    body = {"data_url": "file:///etc/passwd"}
    assert server.test("/v2/models/first/infer", body)["outputs"]["got"] == body


def test_callers_body_is_not_changed(server: MockServer) -> None:
    body = {"model": "iris", "operation": "infer", "inputs": [1]}
    before = json.dumps(body)
    server.test("/", body)
    assert json.dumps(body) == before


def test_input_and_result_path_of_a_router_pick_and_put() -> None:
    fn = servegraph.new_function("f")
    graph = fn.set_topology("flow", engine="sync")
    router = graph.add_step("*", "models", input_path="req", result_path="res")
    router.add_route("a", class_name=Echo)
    with fn.to_mock_server() as made:
        answer = made.test("/", {"req": {"inputs": [1]}, "kept": 2})
        assert answer["kept"] == 2
        assert answer["req"] == {"inputs": [1]}
        assert answer["res"]["outputs"]["got"] == {"inputs": [1]}


# -- subclasses -------------------------------------------------------------------------------------------------------


class Hooked(ModelRouter):
    def preprocess(self, event: Event) -> Event:
        event.body = {**event.body, "pre": True}
        return event

    def postprocess(self, event: Event) -> Event:
        event.body = {"wrapped": event.body["outputs"]["got"]}
        return event


class HookedAsync(ModelRouter):
    async def preprocess(self, event: Event) -> Event:  # type: ignore[override]
        await asyncio.sleep(0)
        return Event({**event.body, "pre": True}, path=event.path, method=event.method)  # one of its own

    async def postprocess(self, event: Event) -> Event:  # type: ignore[override]
        await asyncio.sleep(0)
        event.body = {"wrapped": event.body["outputs"]["got"]}
        return event


@pytest.mark.parametrize("router", [Hooked, HookedAsync])
def test_overridden_hooks_see_and_change_the_event(router: type[ModelRouter]) -> None:
    with serve("a", class_name=router) as made:
        for _ in range(2):
            answer = made.test("/v2/models/a/infer", {"inputs": [1]})
            assert answer == {"wrapped": {"inputs": [1], "pre": True}}


def test_hook_that_fails_is_500_and_names_the_router() -> None:
    class Fails(ModelRouter):
        def preprocess(self, event: Event) -> Event:
            raise ValueError("secret")

    with serve("a", class_name=Fails) as made, pytest.raises(RequestFailedError) as caught:
        made.test("/v2/models/a/infer", {"inputs": [1]})
    assert caught.value.status == 500
    assert "secret" not in json.dumps(caught.value.body)


def test_hook_that_gives_no_event_is_told_so() -> None:
    class Fails(ModelRouter):
        def preprocess(self, event: Event) -> Event:
            return {"not": "an event"}  # type: ignore[return-value]

    with serve("a", class_name=Fails) as made, pytest.raises(RequestFailedError, match="must return"):
        made.test("/v2/models/a/infer", {"inputs": [1]})


def test_router_of_ones_own_calls_its_routes() -> None:
    class Both(BaseModelRouter):
        async def handle(self, event: Event) -> Event:
            bodies = []
            for route in self.routes.values():
                mine = event.fork(dict(event.body))
                mine.path = "infer"
                bodies.append((await route.run(mine)).body["outputs"]["by"])
            event.body = bodies
            return event

    with serve("a", "b", class_name=Both) as made:
        assert made.test("/", {"inputs": []}) == ["a:", "b:"]


def test_router_without_handle_says_so() -> None:
    with serve("a", class_name=BaseModelRouter) as made, pytest.raises(RequestFailedError) as caught:
        made.test("/", {"inputs": []})
    assert isinstance(caught.value.__cause__.__cause__, NotImplementedError)  # type: ignore[union-attr]


def test_router_class_that_takes_no_routes_is_refused() -> None:
    class NoRouter:
        def __init__(self, name: str = "") -> None: ...

        def do(self, body: Any) -> Any: ...

    with pytest.raises(GraphError, match="is no router"):
        serve("a", class_name=NoRouter)


def test_router_with_an_unknown_argument_is_refused() -> None:
    with pytest.raises(GraphError, match="takes no argument 'defalt'; did you mean 'default'"):
        serve("a", defalt="a")


def test_routes_that_are_functions_get_the_body() -> None:
    fn = servegraph.new_function("f")
    fn.set_topology("router").add_route("double", handler=lambda body: {"twice": body["x"] * 2})
    with fn.to_mock_server() as made:
        assert made.test("/v2/models/double/infer", {"x": 4}) == {"twice": 8}
