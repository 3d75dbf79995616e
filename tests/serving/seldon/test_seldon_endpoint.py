"""A component behind a real server: its paths, the forms of its requests, its failures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
import pytest
from raw_http import Answer, Served, serving

import servegraph
from servegraph.errors import NotFoundError, OverloadedError, RequestFailedError, StepError
from servegraph.graph.events import Event, Trigger
from servegraph.runtimes.function import ServingFunction
from servegraph.serving.seldon import wire
from servegraph.serving.seldon.endpoint import OPERATION_PATHS, ComponentEndpoint
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.message import Message
from servegraph.serving.seldon.openapi import seldon_json
from servegraph.serving.seldon.plane import told

ROWS: dict[str, Any] = {"data": {"names": ["a", "b"], "ndarray": [[1, 2]]}}
ECHO: dict[str, Any] = {"data": {"names": ["t:0", "t:1"], "ndarray": [[1, 2]]}, "meta": {}}
BODIES: dict[str, Any] = {"aggregate": {"seldonMessages": [ROWS]}, "send_feedback": {"request": ROWS, "reward": 1}}
GET_AND_POST = sorted(path for path, (_, methods) in OPERATION_PATHS.items() if methods == ("GET", "POST"))
POST_ONLY = sorted(path for path, (_, methods) in OPERATION_PATHS.items() if methods == ("POST",))
GET_ONLY = [
    "/health/ping",
    "/health/status",
    "/api/v1.0/health/status",
    "/metadata",
    "/api/v1.0/metadata",
    "/seldon.json",
]


class UnshowableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def foreign(message: str) -> Exception:
    """The exception of the real package, as a component raises it that has both."""
    kind = type("SeldonMicroserviceException", (Exception,), {"__module__": "seldon_core.flask_utils"})
    error: Exception = kind(message)
    vars(error).update(message=message, status_code=409, reason="CONFLICT")
    return error


ERRORS: dict[str, tuple[Exception, int, str, str]] = {
    "plain": (ValueError("went wrong"), 500, "MICROSERVICE_INTERNAL_ERROR", "went wrong"),
    "nameless": (LookupError(), 500, "MICROSERVICE_INTERNAL_ERROR", "LookupError"),
    "long": (ValueError("x" * 9000), 500, "MICROSERVICE_INTERNAL_ERROR", "x" * 7997 + "..."),
    "default": (SeldonMicroserviceException("bad"), 400, "MICROSERVICE_BAD_DATA", "bad"),
    "chosen": (SeldonMicroserviceException("busy", 503, {"p": 1}, "BUSY"), 503, "BUSY", "busy"),
    "enum": (SeldonMicroserviceException("gone", HTTPStatus.GONE), 410, "MICROSERVICE_BAD_DATA", "gone"),
    "no failure": (SeldonMicroserviceException("fine", 200), 200, "MICROSERVICE_BAD_DATA", "fine"),
    "no body": (SeldonMicroserviceException("none", 204), 500, "MICROSERVICE_BAD_DATA", "none"),
    "no status": (SeldonMicroserviceException("odd", "404"), 500, "MICROSERVICE_BAD_DATA", "odd"),  # type: ignore[arg-type]
    "real package": (foreign("clash"), 409, "CONFLICT", "clash"),
}


class Echo:
    def predict(self, X: Any, names: Any, meta: Any = None) -> Any:
        if isinstance(X, dict) and "raise" in X:
            raise ERRORS[X["raise"]][0]
        return X

    transform_input = transform_output = predict

    def route(self, X: Any, names: Any) -> int:
        return 1

    def aggregate(self, X: Any, names: Any) -> Any:
        return X[0]

    def send_feedback(self, X: Any, names: Any, reward: float, truth: Any, routing: Any = None) -> Any:
        return X

    def init_metadata(self) -> dict[str, Any]:
        return {"name": "echo", "custom": {"author": "ann"}}


class EchoAsync(Echo):
    async def predict(self, X: Any, names: Any, meta: Any = None) -> Any:
        return super().predict(X, names, meta)

    transform_input = transform_output = predict


def endpoint(component: Any, **options: Any) -> ServingFunction:
    fn = servegraph.new_function("component")
    graph = fn.set_topology("flow", engine="async")
    graph.to(ComponentEndpoint, name="component", component=component, **options).respond()
    return fn


@pytest.fixture(scope="module", params=[Echo, EchoAsync], ids=["plain", "async"])
def server(request: pytest.FixtureRequest) -> Iterator[Served]:
    with serving(endpoint(request.param()), limits={"body_json_bytes": 50_000}) as served:
        yield served


def failed(answer: Answer, status: int, reason: str = "MICROSERVICE_BAD_DATA") -> str:
    """What a failed request is told."""
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/json"
    body = json.loads(answer.body)
    info = body["status"].pop("info")
    assert body == {"status": {"code": -1, "reason": reason, "status": 1}}
    assert isinstance(info, str)
    return info


def content(answer: Answer) -> Any:
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json"), answer
    return json.loads(answer.body)


# -- paths -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*GET_AND_POST, *POST_ONLY])
def test_operation_answers_at_each_of_its_paths(server: Served, path: str) -> None:
    op = OPERATION_PATHS[path][0]
    answer = content(server.ask(path, BODIES.get(op, ROWS)))
    if op == "route":
        assert answer == {"data": {"names": ["t:0"], "ndarray": [[1]]}, "meta": {}}
    elif op == "send_feedback":
        assert answer["data"]["ndarray"] == [[1.0, 2.0]]
    else:
        assert answer == ECHO


@pytest.mark.parametrize("path", GET_AND_POST)
def test_operation_can_be_asked_with_get(server: Served, path: str) -> None:
    body = json.dumps(BODIES.get(OPERATION_PATHS[path][0], ROWS))
    assert "data" in content(server.ask(f"{path}?json={quote(body)}"))


@pytest.mark.parametrize(
    ("path", "method", "allow"),
    [
        *((path, "GET", "POST") for path in POST_ONLY),
        *((path, "POST", "GET") for path in GET_ONLY),
        *((path, "PUT", "GET, POST") for path in GET_AND_POST),
        ("/predict", "DELETE", "GET, POST"),
        ("/predict", "PATCH", "GET, POST"),
    ],
)
def test_wrong_method_is_405_and_tells_the_right_ones(server: Served, path: str, method: str, allow: str) -> None:
    answer = server.ask(path, None if method == "GET" else ROWS, method=method)
    info = failed(answer, 405)
    assert (answer.headers["allow"], info.startswith(f"405 Method Not Allowed: {path} is for")) == (allow, True)


@pytest.mark.parametrize("path", ["/", "/nothing", "/predict/", "/Predict", "/api/v2.0/predictions", "/live", "/ready"])
def test_unknown_path_is_404_and_tells_those_that_there_are(server: Served, path: str) -> None:
    info = failed(server.ask(path, ROWS), 404)
    assert info.startswith(f"404 Not Found: there is no path '{path}'; a component has /predict, ")
    for known in (*GET_ONLY, "/v2/health/live", "/v2/health/ready"):
        assert f" {known}" in info


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data; boundary=b"])
def test_unknown_path_and_wrong_method_are_told_before_a_body_that_cannot_be_read(
    server: Served, content_type: str
) -> None:
    fields = {"content-type": content_type}
    assert failed(server.ask("/nothing", b"{", fields, "POST"), 404).startswith("404 Not Found")
    assert failed(server.ask("/predict", b"{", fields, "PUT"), 405).startswith("405 Method Not Allowed")


@pytest.mark.parametrize("path", GET_ONLY)
def test_head_is_get_without_the_body(server: Served, path: str) -> None:
    head, get = server.ask(path, method="HEAD"), server.ask(path)
    assert (head.status, head.body, get.status) == (200, b"", 200)
    assert head.headers["content-length"] == str(len(get.body))


def test_pages_answer(server: Served) -> None:
    ping = server.ask("/health/ping")
    assert (ping.body, ping.headers["content-type"]) == (b"pong", "text/html; charset=utf-8")
    for path in ("/health/status", "/api/v1.0/health/status"):
        assert content(server.ask(path)) == {"strData": "healthy", "meta": {}}
    for path in ("/metadata", "/api/v1.0/metadata"):
        assert content(server.ask(path)) == {
            "name": "echo",
            "versions": [""],
            "platform": "",
            "inputs": [],
            "outputs": [],
            "custom": {"author": "ann"},
        }
    assert content(server.ask("/seldon.json")) == seldon_json()


def test_metadata_is_that_of_the_deployment_and_an_invalid_one_is_a_failure_of_its_own() -> None:
    with endpoint(Echo(), metadata="name: of the deployment").to_mock_server() as server:
        found = server.test("/metadata")
        assert (found["name"], found["custom"]) == ("of the deployment", {"author": "ann"})
    with endpoint(Echo(), metadata="name: 5").to_mock_server() as server:
        answer = server.test("/metadata", silent=True, get_body=False)
        assert (answer.status_code, answer.body["status"]["reason"]) == (500, "MICROSERVICE_BAD_METADATA")
        assert server.test("/predict", ROWS)["data"]["names"] == ["t:0", "t:1"]


# -- the forms of a request --------------------------------------------------------------------------------------------

TEXT = json.dumps(ROWS)
FORM = "application/x-www-form-urlencoded"
BOUNDARY = "f47ac10b58cc4372"
PART = "\r\n".join(
    [
        f"--{BOUNDARY}",
        'Content-Disposition: form-data; name="data"',
        "",
        json.dumps(ROWS["data"]),
        f"--{BOUNDARY}--",
        "",
    ]
)


@pytest.mark.parametrize(
    ("path", "body", "content_type"),
    [
        ("/predict", TEXT, "application/json"),
        ("/predict", TEXT, "application/json; charset=utf-8"),
        ("/predict", TEXT.encode("utf-16").decode("latin-1"), "application/json; charset=utf-16"),
        ("/predict", TEXT, "application/vnd.seldon+json"),
        ("/predict", urlencode({"json": TEXT, "isDefault": "true"}), FORM),
        ("/predict", urlencode({"json": TEXT}), f"{FORM}; charset=utf-8"),
        (f"/predict?json={quote(TEXT)}", "", "text/plain"),
        (f"/predict?x=1&json={quote(TEXT)}", '{"strData": "of the body"}', "application/json"),
        ("/predict?x=1", TEXT, "application/json"),
        (f"/predict?json={quote('5')}", urlencode({"json": TEXT}), FORM),
        ("/predict", PART, f"multipart/form-data; boundary={BOUNDARY}"),
    ],
    ids=range(11),
)
def test_request_is_read_in_each_form(server: Served, path: str, body: str, content_type: str) -> None:
    answer = server.ask(path, body.encode("latin-1"), {"content-type": content_type}, "POST")
    assert content(answer) == ECHO


@pytest.mark.parametrize(
    ("path", "body", "content_type", "problem"),
    [
        ("/predict", "", "application/json", "Can't find JSON in data"),
        ("/predict", "null", "application/json", "Can't find JSON in data"),
        ("/predict", "{", "application/json", "Can't find JSON in data: "),
        ("/predict", "\ufeff{", "application/json; charset=utf-8", "Can't find JSON in data: "),
        ("/predict", TEXT, "text/plain", "Can't find JSON in data"),
        ("/predict", TEXT, "", "Can't find JSON in data"),
        ("/predict", urlencode({"json": "{"}), FORM, "Can't find JSON in data: "),
        ("/predict", urlencode({"data": "{}"}), FORM, "Can't find JSON in data"),
        ("/predict?json={", "", "text/plain", "Can't find JSON in data: "),
        ("/predict", "&".join(["a=1"] * 1001), FORM, "the form cannot be read: Max number of fields"),
        ("/predict", "x", "multipart/form-data", "Can't find JSON in data: the body is no multipart form"),
        ("/predict", "[1]", "application/json", "Invalid request data type: a JSON object is wanted, not a list"),
        ("/predict", "{}", "application/json", "Invalid request data type: the message has none of data, jsonData"),
        ("/aggregate", "{}", "application/json", "Invalid request data type: a list of messages (seldonMessages)"),
        ("/send-feedback", '{"x": 1}', "application/json", "Invalid JSON: feedback has no 'x'"),
        ("/send-feedback", '{"reward": 1e300}', "application/json", "Invalid JSON: reward must be a number that fits"),
        ("/predict", '{"data": {"ndarray": [[1], [2, 3]]}}', "application/json", "data.ndarray is not rectangular"),
    ],
)
def test_malformed_request_is_400_with_the_reason(
    server: Served, path: str, body: str, content_type: str, problem: str
) -> None:
    answer = server.ask(path, body.encode(), {"content-type": content_type}, "POST")
    assert failed(answer, 400).startswith(problem)


def test_body_beyond_the_limit_is_413(server: Served) -> None:
    assert "the limit is 50000" in failed(server.ask("/predict", {"strData": "x" * 50_000}), 413)
    assert content(server.ask("/predict", {"strData": "x" * 40_000}))["strData"] == "x" * 40_000


def test_compressed_body_and_unknown_charset_are_415(server: Served) -> None:
    zipped = server.ask("/predict", b"\x1f\x8b", {"content-encoding": "gzip"})
    assert "compressed request bodies are not accepted" in failed(zipped, 415)
    odd = server.ask("/predict", TEXT.encode(), {"content-type": "application/json; charset=klingon"})
    assert "charset 'klingon' is unknown" in failed(odd, 415)


# -- failures of the component -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("path", ["/predict", "/api/v1.0/predictions", "/transform-input"])
def test_failure_of_the_component_has_status_reason_and_text(server: Served, path: str, kind: str) -> None:
    _, status, reason, info = ERRORS[kind]
    assert failed(server.ask(path, {"jsonData": {"raise": kind}}), status, reason) == info


def test_failure_that_cannot_be_shown_or_that_the_engine_wrapped_is_told() -> None:
    assert told(UnshowableError()) == (500, "UnshowableError", "MICROSERVICE_INTERNAL_ERROR")
    wrapped = StepError("step 'component' failed")
    assert told(wrapped) == (500, "step 'component' failed", "MICROSERVICE_INTERNAL_ERROR")
    wrapped.__cause__ = KeyError("key")
    assert told(wrapped) == (500, "'key'", "MICROSERVICE_INTERNAL_ERROR")
    assert told(NotFoundError("no such path")) == (404, "no such path", "MICROSERVICE_BAD_DATA")
    assert told(OverloadedError("full")) == (503, "full", "MICROSERVICE_INTERNAL_ERROR")


def test_server_that_is_full_tells_when_to_come_again() -> None:
    with endpoint(Echo()).to_mock_server() as mock:
        reply = mock.data_plane.failure(OverloadedError("full"), Event())
    assert (reply.status, reply.content_type) == (503, "application/json")
    assert int((reply.headers or {})["retry-after"]) >= 1
    assert json.loads(reply.body)["status"]["info"] == "full"


def test_missing_method_is_400_and_an_unsendable_answer_500() -> None:
    class Odd:
        def predict(self, X: Any, names: Any) -> Any:
            return None

        def transform_input(self, X: Any, names: Any) -> Any:
            return {"a": object()}

    with serving(endpoint(Odd())) as served:
        assert failed(served.ask("/route", ROWS), 400) == "Route not defined"
        assert failed(served.ask("/aggregate", [ROWS]), 400) == "Aggregate not defined"
        assert failed(served.ask("/predict", ROWS), 400).startswith("Unknown data type returned as payload")
        answer = served.ask("/transform-input", ROWS)
        info = failed(answer, 500, "MICROSERVICE_INTERNAL_ERROR")
        assert info == "$.jsonData.a: builtins.object cannot be written as JSON"


def test_numbers_that_json_has_not_are_null(server: Served) -> None:
    class Odd:
        def predict(self, X: Any, names: Any) -> Any:
            return np.array([[np.nan, np.inf, 1.0]])

    with endpoint(Odd()).to_mock_server() as mock:
        reply = mock.data_plane.encode(mock.test("/predict", ROWS))
    assert json.loads(reply)["data"]["ndarray"] == [[None, None, 1.0]]


# -- low-level methods -------------------------------------------------------------------------------------------------


class Raw:
    def __init__(self, result: Any) -> None:
        self.result = result
        self.seen: list[Any] = []

    def predict_raw(self, msg: Any) -> Any:
        self.seen.append(msg)
        return self.result


@pytest.mark.parametrize(
    ("result", "status", "body"),
    [
        ({"any": "thing"}, 200, b'{"any":"thing"}'),
        ({"status": {"code": 404}}, 404, b'{"status":{"code":404}}'),
        ({"status": {"code": 0}}, 200, b'{"status":{"code":0}}'),
        ([1], 200, b"[1]"),
        (None, 200, b"null"),
    ],
)
def test_low_level_answer_is_sent_as_it_is_with_the_status_that_it_asks_for(
    result: Any, status: int, body: bytes
) -> None:
    with serving(endpoint(Raw(result))) as served:
        answer = served.ask("/predict", ROWS)
    assert (answer.status, answer.body, answer.headers["content-type"]) == (status, body, "application/json")


def test_body_is_passed_through_where_the_deployment_asks_for_that() -> None:
    raw = Raw(b"as it is")
    with serving(endpoint(raw, passthrough=True)) as served:
        for body, content_type in ((b"{not json", "application/json"), (b"json=%7Bnot", FORM)):
            answer = served.ask("/predict", body, {"content-type": content_type})
            assert (answer.status, answer.body) == (200, b"as it is")
        assert failed(served.ask("/api/v1.0/predictions", b"{not json"), 400).startswith("Can't find JSON in data: ")
    assert raw.seen == [b"{not json", "{not"]


# -- gRPC and Flask ----------------------------------------------------------------------------------------------------


def test_event_of_grpc_carries_bytes_in_and_a_message_out() -> None:
    source = wire.message_to_wire(Message("data", np.array([[1.0, 2.0]]), ["a", "b"], "tensor"))
    with endpoint(Echo()).to_mock_server() as server:
        message = server.run(Event(source, path="/predict", trigger=Trigger("grpc")), get_body=True)
    assert isinstance(message, Message)
    assert (message.encoding, message.value.tolist(), message.names) == ("tensor", [[1.0, 2.0]], ["t:0", "t:1"])


def failing_with_flask(asynchronous: bool) -> Any:
    """A component that reads a header of ``flask.request`` and has error handlers in a Blueprint."""
    import flask

    class BudgetError(Exception):
        pass

    class Failing:
        model_error_handler = flask.Blueprint("error_handlers", __name__)

        def predict(self, X: Any, names: Any) -> Any:
            if flask.request.headers.get("X-Fail"):
                raise BudgetError(flask.request.headers["X-Fail"])
            return [flask.request.path, flask.request.get_json()["data"]["names"][0]]

        transform_input = predict

    class FailingAsync(Failing):
        async def predict(self, X: Any, names: Any) -> Any:
            return super().predict(X, names)

        transform_input = predict

    @Failing.model_error_handler.app_errorhandler(BudgetError)
    def handle(error: Exception) -> Any:
        return flask.jsonify({"spent": str(error), "path": flask.request.path}), 402, {"X-Budget": "none"}

    return FailingAsync() if asynchronous else Failing()


@pytest.mark.parametrize("asynchronous", [False, True], ids=["plain", "async"])
def test_flask_request_and_error_handlers_work_behind_a_server(asynchronous: bool) -> None:
    with serving(endpoint(failing_with_flask(asynchronous))) as served:
        for path in ("/predict", "/transform-input"):
            assert content(served.ask(path, ROWS))["data"]["ndarray"] == [path, "a"]
            answer = served.ask(path, ROWS, {"X-Fail": "all"})
            assert (answer.status, answer.headers["x-budget"]) == (402, "none")
            assert (answer.headers["content-type"], json.loads(answer.body)) == (
                "application/json",
                {"spent": "all", "path": path},
            )
        # What no handler is for is answered as ever.
        assert failed(served.ask("/route", ROWS), 400) == "Route not defined"


def test_flask_request_has_the_address_of_the_client() -> None:
    import flask

    class Nosy:
        def predict(self, X: Any, names: Any) -> Any:
            return str(flask.request.remote_addr)

    with serving(endpoint(Nosy())) as served:
        assert content(served.ask("/predict", ROWS))["strData"] == "127.0.0.1"


def test_answer_of_an_error_handler_has_its_media_type_once() -> None:
    with endpoint(failing_with_flask(False)).to_mock_server() as server:
        answer = server.test("/predict", ROWS, headers={"X-Fail": "all"}, silent=True)
    assert (answer.status_code, answer.content_type, answer.headers) == (402, "application/json", {"X-Budget": "none"})


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "multipart/form-data"])
def test_error_handlers_of_flask_see_requests_that_cannot_be_read(content_type: str) -> None:
    import flask

    class Handling(Echo):
        model_error_handler = flask.Blueprint("error_handlers", __name__)

    @Handling.model_error_handler.app_errorhandler(SeldonMicroserviceException)
    def handle(error: SeldonMicroserviceException) -> Any:
        if flask.request.headers.get("X-Fail"):
            raise KeyError("in the handler")
        return flask.jsonify({"told": str(error), "body": flask.request.get_data(as_text=True)}), 422

    with serving(endpoint(Handling())) as served:
        answer = served.ask("/predict", b"{", {"content-type": content_type})
        body = json.loads(answer.body)
        assert (answer.status, body["told"].startswith("Can't find JSON in data")) == (422, True)
        assert content_type == "text/plain" or body["body"] == "{"
        failing = served.ask("/predict", b"{", {"content-type": content_type, "X-Fail": "1"})
        if content_type == "text/plain":  # it came as far as the step, whose failure is now that of its handler
            assert failed(failing, 500, "MICROSERVICE_INTERNAL_ERROR") == "'in the handler'"
        else:
            assert failed(failing, 400).startswith("Can't find JSON in data: ")


def test_mock_server_tells_of_a_request_that_cannot_be_read_as_of_any_failure() -> None:
    with endpoint(Echo()).to_mock_server() as server:
        for content_type in ("application/json", "multipart/form-data", FORM):
            with pytest.raises(RequestFailedError, match="Can't find JSON in data"):
                server.test("/predict", "{", content_type=content_type)
            answer = server.test("/predict", "{", content_type=content_type, silent=True)
            assert (answer.status_code, answer.body["status"]["reason"]) == (400, "MICROSERVICE_BAD_DATA")


@pytest.mark.parametrize("kind", [Echo, EchoAsync])
def test_pages_of_a_component_in_this_process_need_no_wait(kind: type[Echo]) -> None:
    with endpoint(kind()).to_mock_server() as server:
        assert server.test("/health/ping") == "pong"
        assert server.test("/metadata")["name"] == "echo"


def test_metadata_is_not_there_before_the_component_is_loaded() -> None:
    step = ComponentEndpoint(component=Echo())
    with pytest.raises(SeldonMicroserviceException, match="the component is not loaded yet") as caught:
        step.answer_page(Event(path="/metadata", method="GET"))
    assert caught.value.status_code == 503
    step.post_init()
    event = Event(path="/metadata", method="GET")
    assert step.answer_page(event)
    assert event.body["name"] == "echo"


def test_error_handlers_of_flask_are_not_asked_on_grpc() -> None:
    source = wire.message_to_wire(Message("strData", "x"))
    with endpoint(failing_with_flask(False)).to_mock_server() as server:
        event = Event(source, path="/predict", trigger=Trigger("grpc"), headers={"X-Fail": "all"})
        answer = server.run(event, silent=True)
    assert answer.status_code == 500
    assert "Working outside of request context" in answer.body["status"]["info"]


NOT_FINITE = '{"data":{"ndarray":[[NaN,-Infinity,1e400,1.0]]}}'


@pytest.mark.parametrize(
    ("path", "body", "content_type"),
    [
        ("/predict", NOT_FINITE, "application/json"),
        ("/predict", "\ufeff" + NOT_FINITE, "application/json"),
        ("/predict", urlencode({"json": NOT_FINITE}), "application/x-www-form-urlencoded"),
        (f"/predict?json={quote(NOT_FINITE)}", "", ""),
        (
            "/predict",
            f'--b\r\nContent-Disposition: form-data; name="data"\r\n\r\n{NOT_FINITE[8:-1]}\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
        ),
    ],
    ids=["body", "mark", "form", "query", "parts"],
)
def test_not_finite_numbers_reach_the_component_in_each_form(path: str, body: str, content_type: str) -> None:
    seen: list[Any] = []

    class Seer:
        def predict(self, X: Any, names: Any) -> Any:
            seen.append(X)
            return np.nan_to_num(X, nan=-1.0, posinf=2.0, neginf=3.0)

    with serving(endpoint(Seer())) as served:
        answer = served.ask(path, body.encode(), {"content-type": content_type or "text/plain"}, "POST")
    assert answer.status == 200, answer
    assert json.loads(answer.body)["data"]["ndarray"] == [[-1.0, 3.0, 2.0, 1.0]]
    np.testing.assert_equal(seen, [np.array([[np.nan, -np.inf, np.inf, 1.0]])])


def test_part_of_a_form_has_the_limits_of_a_body() -> None:
    deep = '{"a":' * 100 + "1" + "}" * 100
    body = f'--b\r\nContent-Disposition: form-data; name="jsonData"\r\n\r\n{deep}\r\n--b--\r\n'
    with serving(endpoint(Echo())) as served:
        answer = served.ask("/predict", body.encode(), {"content-type": "multipart/form-data; boundary=b"})
    assert "limits.json_depth" in failed(answer, 400)


class Leaver:
    def predict(self, X: Any, names: Any) -> Any:
        if X == "in":
            return X
        ends: dict[str, BaseException] = {
            "kbd": KeyboardInterrupt(),
            "exit": SystemExit(3),
            "gen": GeneratorExit(),
            "stop": StopIteration(),
        }
        raise ends[X]


class LeaverAsync:
    async def predict(self, X: Any, names: Any) -> Any:
        return Leaver().predict(X, names)


@pytest.mark.parametrize("kind", [Leaver, LeaverAsync])
def test_component_that_would_end_the_process_fails_its_request_alone(kind: type) -> None:
    told = {"kbd": "KeyboardInterrupt()", "exit": "SystemExit(3)"}
    if kind is Leaver:
        told["gen"] = "GeneratorExit()"
    with serving(endpoint(kind())) as served:
        for _ in range(12):  # on a thread at first, then on the event loop
            assert content(served.ask("/predict", {"strData": "in"}))["strData"] == "in"
        for word, info in told.items():
            assert failed(served.ask("/predict", {"strData": word}), 500, "MICROSERVICE_INTERNAL_ERROR") == info
        failed(served.ask("/predict", {"strData": "stop"}), 500, "MICROSERVICE_INTERNAL_ERROR")
        assert content(served.ask("/predict", {"strData": "in"}))["strData"] == "in"


def test_interrupt_at_the_keyboard_goes_through_a_mock_server() -> None:
    with endpoint(Leaver()).to_mock_server() as server, pytest.raises(KeyboardInterrupt):
        server.test("/predict", {"strData": "kbd"})


def test_log_of_a_failed_request_begins_at_the_users_line(caplog: pytest.LogCaptureFixture) -> None:
    with serving(endpoint(Echo())) as served, caplog.at_level("ERROR", logger="servegraph"):
        failed(served.ask("/predict", {"jsonData": {"raise": "plain"}}), 500, "MICROSERVICE_INTERNAL_ERROR")
    [record] = [record for record in caplog.records if record.exc_info]
    lines = caplog.handler.format(record).splitlines()
    assert "test_seldon_endpoint.py" in lines[lines.index("Traceback (most recent call last):") + 1]


def test_import_of_flask_inside_a_method_tells_how_to_install_it(caplog: pytest.LogCaptureFixture) -> None:
    class Late:
        def predict(self, X: Any, names: Any) -> Any:
            raise ModuleNotFoundError("No module named 'flask'", name="flask")

    with serving(endpoint(Late())) as served, caplog.at_level("ERROR", logger="servegraph"):
        failed(served.ask("/predict", ROWS), 500, "MICROSERVICE_INTERNAL_ERROR")
    assert "pip install 'servegraph[flask]'" in caplog.text
