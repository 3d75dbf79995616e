"""Remote steps against a real server on 127.0.0.1: what is sent, what a status means, when a call is repeated."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from remote_peer import Answer, Asked, Peer, running_peer

import servegraph
from servegraph.errors import DeadlineError, GraphError, RemoteError, RequestFailedError, UnprocessableError
from servegraph.graph.events import Event
from servegraph.runtimes.mock import MockServer
from servegraph.serving import BatchHttpRequests, RemoteStep, V2ModelServer, VotingEnsemble

FAST = {"retries": 2, "backoff_factor": 0.001}


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer(lambda asked: Answer({"path": asked.path, "got": asked.body.decode()})) as running:
        yield running


def flow(class_name: Any = RemoteStep, **arguments: Any) -> MockServer:
    fn = servegraph.new_function("caller", kind="serving")
    fn.set_topology("flow", engine="async").to(class_name=class_name, name="call", **arguments).respond()
    return fn.to_mock_server()


def failure(server: MockServer, body: Any = None, path: str = "/") -> BaseException | None:
    with pytest.raises(RequestFailedError) as caught:
        server.test(path, {"x": 1} if body is None else body)
    return caught.value.__cause__


# -- what is sent ---------------------------------------------------------------------------------------------------


def test_remote_step_with_a_json_body_posts_it_and_gives_the_json_answer(peer: Peer) -> None:
    with flow(url=peer.url + "/do", headers={"X-Mine": "yes"}) as server:
        answer = server.test("/in", {"x": [1, 2]}, headers={"X-Secret": "s"}, event_id="id-1")
    assert answer == {"path": "/do", "got": '{"x":[1,2]}'}
    sent = peer.asked[0]
    assert (sent.method, sent.headers["content-type"]) == ("POST", "application/json")
    assert sent.headers["x-request-id"] == sent.headers["mlrun-event-id"] == "id-1"
    assert sent.headers["x-mine"] == "yes"
    assert "x-secret" not in sent.headers
    assert "mlrun-event-path" not in sent.headers


def test_remote_step_with_paths_reads_its_input_and_writes_its_result(peer: Peer) -> None:
    with flow(url=peer.url, input_path="a.b", result_path="c") as server:
        body = {"a": {"b": 5}}
        answer = server.test("/", body)
    assert answer == {"a": {"b": 5}, "c": {"path": "/", "got": "5"}}
    assert body == {"a": {"b": 5}}


def test_remote_step_with_get_sends_no_body(peer: Peer) -> None:
    with flow(url=peer.url, method="get") as server:
        server.test("/", {"x": 1})
    assert (peer.asked[0].method, peer.asked[0].body) == ("GET", b"")


def test_remote_step_with_a_deadline_sends_on_what_is_left(peer: Peer) -> None:
    with flow(url=peer.url, timeout=60) as server:
        event = Event({"x": 1}, method="POST")
        event.deadline = time.monotonic() + 5
        server.run(event)
    assert 0 < int(peer.asked[0].headers["x-request-timeout-ms"]) <= 5000


def test_remote_step_with_bytes_sends_them_under_the_events_content_type(peer: Peer) -> None:
    peer.answer = lambda asked: Answer(b"\x00\x01", content_type="application/octet-stream")
    with flow(url=peer.url, return_json=False) as server:
        assert server.test("/", b"\xff\x00", content_type="image/png") == b"\x00\x01"
    assert (peer.asked[0].body, peer.asked[0].headers["content-type"]) == (b"\xff\x00", "image/png")


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/a/b", "/base/a/b"), ("/", "/base"), ("/a?x=1#y", "/base/a%3Fx=1%23y"), ("/ä b", "/base/%C3%A4%20b")],
)
def test_subpath_from_the_event_stays_a_path_below_the_url(peer: Peer, path: str, expected: str) -> None:
    with flow(url=peer.url + "/base", subpath="$path") as server:
        server.test(path, {})
    assert peer.asked[0].path == expected


@pytest.mark.parametrize("path", ["/../admin", "/a/../../b", "/%2e%2e/b", "/%252e%252e/b", "/..\\b", "/./x"])
def test_subpath_from_the_event_that_leads_out_of_the_url_is_refused(peer: Peer, path: str) -> None:
    with flow(url=peer.url + "/base", subpath="$path") as server:
        assert isinstance(failure(server, path=path), UnprocessableError)
    assert peer.asked == []


def test_subpath_with_a_headers_expression_is_kept(peer: Peer) -> None:
    with flow(url=peer.url, subpath="sub", headers_expression="{'X-User': event['u']}") as server:
        server.test("/", {"u": "me"})
    assert (peer.asked[0].path, peer.asked[0].headers["x-user"]) == ("/sub", "me")


def test_headers_expression_with_a_line_break_in_a_value_is_refused(peer: Peer) -> None:
    with flow(url=peer.url, headers_expression="{'X-User': event['u']}") as server:
        assert isinstance(failure(server, {"u": "me\r\nX-Admin: 1"}), UnprocessableError)
    assert peer.asked == []


def test_body_expression_decides_what_is_sent(peer: Peer) -> None:
    with flow(url=peer.url, body_expression="{'y': event['x'] + 1}") as server:
        server.test("/", {"x": 1})
    assert peer.asked[0].json == {"y": 2}


@pytest.mark.parametrize("expression", ["endpoint + '/v/' + event['n']", "'/v/' + event['n']"])
def test_url_expression_on_the_urls_own_origin_is_followed(peer: Peer, expression: str) -> None:
    with flow(url=peer.url, url_expression=expression) as server:
        server.test("/", {"n": "7"})
    assert peer.asked[0].path == "/v/7"


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest", "http://127.0.0.1:1/", "https://127.0.0.1/", "//127.0.0.1:1/x", "file:///etc",
        "http://user@127.0.0.1/", "http://127.0.0.1\\@other/", "/\\other/x", 5, "http://[::1",
    ],
)  # fmt: skip
def test_url_expression_that_leads_elsewhere_is_refused(peer: Peer, url: Any) -> None:
    with flow(url=peer.url, url_expression="event['u']") as server:
        assert isinstance(failure(server, {"u": url}), UnprocessableError)
    assert peer.asked == []


def test_url_expression_with_an_allowed_origin_is_followed(peer: Peer) -> None:
    with flow(url_expression="event['u']", allowed_origins=[peer.url]) as server:
        server.test("/", {"u": peer.url + "/x"})
    assert peer.asked[0].path == "/x"


# -- what an answer means -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 400, 404, 500, 502])
def test_remote_step_with_a_failed_answer_is_a_502_that_names_step_and_status(peer: Peer, status: int) -> None:
    peer.answer = lambda asked: Answer({"secret": "s3cret"}, status, {"location": "/elsewhere"})
    with flow(url=peer.url, retries=0) as server:
        error = failure(server)
    assert isinstance(error, RemoteError)
    assert "'call'" in str(error)
    assert str(status) in str(error)
    assert "s3cret" not in str(error)
    assert len(peer.asked) == 1


def test_remote_step_that_passes_client_errors_gives_them_to_the_caller(peer: Peer) -> None:
    peer.answer = lambda asked: Answer(b"", 422)
    with flow(url=peer.url, pass_client_errors=True) as server:
        assert isinstance(failure(server), UnprocessableError)
    peer.answer = lambda asked: Answer(b"", 401)  # about our credentials, not about the request
    with flow(url=peer.url, pass_client_errors=True) as server:
        assert isinstance(failure(server), RemoteError)


def test_remote_step_with_an_answer_that_is_no_json_is_a_502(peer: Peer) -> None:
    peer.answer = lambda asked: Answer(b"<html>", content_type="text/html")
    with flow(url=peer.url) as server:
        assert isinstance(failure(server), RemoteError)


def test_remote_step_with_an_answer_that_is_too_large_is_a_502(peer: Peer) -> None:
    peer.answer = lambda asked: Answer(b"[" + b" " * 5000 + b"]")
    with flow(url=peer.url, max_response_bytes=1000) as server:
        assert "1000" in str(failure(server))


# -- when a call is repeated ----------------------------------------------------------------------------------------


def test_post_that_is_answered_with_500_is_not_repeated(peer: Peer) -> None:
    peer.answer = lambda asked: Answer(b"", 500)
    with flow(url=peer.url, **FAST) as server:
        assert isinstance(failure(server), RemoteError)
    assert len(peer.asked) == 1


@pytest.mark.parametrize("arguments", [{"method": "PUT"}, {"idempotent": True}])
def test_idempotent_call_that_is_answered_with_500_is_repeated(peer: Peer, arguments: dict[str, Any]) -> None:
    peer.answer = lambda asked: Answer({"n": len(peer.asked)}, 200 if len(peer.asked) == 3 else 500)
    with flow(url=peer.url, **FAST, **arguments) as server:
        assert server.test("/", {}) == {"n": 3}


def test_post_that_is_answered_with_503_and_retry_after_is_repeated(peer: Peer) -> None:
    peer.answer = lambda asked: Answer({}, 503, {"retry-after": "0"}) if len(peer.asked) == 1 else Answer({"ok": 1})
    with flow(url=peer.url, **FAST) as server:
        assert server.test("/", {}) == {"ok": 1}
    peer.asked.clear()
    peer.answer = lambda asked: Answer({}, 503)  # it does not say that it did nothing
    with flow(url=peer.url, **FAST) as server:
        assert isinstance(failure(server), RemoteError)
    assert len(peer.asked) == 1


def test_post_whose_connection_is_reset_is_not_repeated_and_put_is(peer: Peer) -> None:
    peer.answer = lambda asked: Answer(reset=True)
    with flow(url=peer.url, **FAST) as server:
        assert isinstance(failure(server), RemoteError)
    assert len(peer.asked) == 1
    with flow(url=peer.url, method="PUT", **FAST) as server:
        assert isinstance(failure(server), RemoteError)
    assert len(peer.asked) == 4


def test_post_that_cannot_connect_is_repeated_until_it_can(free_port: int) -> None:
    with flow(url=f"http://127.0.0.1:{free_port}", **FAST) as server:
        error = failure(server)
    assert isinstance(error, RemoteError)
    assert "could not be reached" in str(error)


def test_remote_step_whose_answer_does_not_come_in_time_is_a_504(peer: Peer) -> None:
    never = threading.Event()
    peer.answer = lambda asked: Answer(wait_for=never)
    try:
        with flow(url=peer.url, timeout=0.1, retries=0) as server:
            assert isinstance(failure(server), DeadlineError)
        with flow(url=peer.url, timeout=30) as server:
            event = Event({}, method="POST")
            event.deadline = time.monotonic() + 0.1
            with pytest.raises(RequestFailedError) as caught:
                server.run(event)
            assert isinstance(caught.value.__cause__, DeadlineError)
    finally:
        never.set()


def test_retry_after_beyond_the_deadline_is_not_waited_for(peer: Peer) -> None:
    peer.answer = lambda asked: Answer({}, 503, {"retry-after": "60"})
    with flow(url=peer.url) as server:
        event = Event({}, method="POST")
        event.deadline = time.monotonic() + 5
        started = time.monotonic()
        with pytest.raises(RequestFailedError) as caught:
            server.run(event)
    assert isinstance(caught.value.__cause__, RemoteError)
    assert time.monotonic() - started < 4.5


# -- as a route -----------------------------------------------------------------------------------------------------


def test_remote_model_as_a_route_gets_the_operation_behind_its_url(peer: Peer) -> None:
    fn = servegraph.new_function("router", kind="serving")
    fn.add_model("far", model_url=peer.url + "/v2/models/far")
    with fn.to_mock_server() as server:
        server.test("/v2/models/far/infer", {"inputs": [1]})
        server.test("/v2/models/far", method="GET")
        peer.answer = lambda asked: Answer(b"", 422)
        with pytest.raises(RequestFailedError) as caught:
            server.test("/v2/models/far/infer", {"inputs": "x"})
    assert [(a.method, a.path) for a in peer.asked[:2]] == [("POST", "/v2/models/far/infer"), ("GET", "/v2/models/far")]
    assert caught.value.status == 422


def test_remote_model_as_a_route_says_in_its_own_words_that_it_is_ready(peer: Peer) -> None:
    peer.answer = lambda asked: Answer("Modèle prêt".encode(), content_type="text/plain; charset=utf-8")
    fn = servegraph.new_function("router", kind="serving")
    fn.add_model("far", model_url=peer.url + "/v2/models/far")
    with fn.to_mock_server() as server:
        assert server.test("/v2/models/far/ready") == "Modèle prêt"
        with pytest.raises(RequestFailedError, match="no valid JSON"):
            server.test("/v2/models/far/infer", {"inputs": [1]})


def test_remote_model_in_an_ensemble_gets_tensors_as_they_came_and_may_answer_with_tensors(peer: Peer) -> None:
    class Two(V2ModelServer):
        def load(self) -> None:
            pass

        def predict(self, request: Any) -> Any:
            assert request["inputs"] == [[1.0], [2.0]]
            return [2.0, 2.0]

    peer.answer = lambda asked: Answer(
        {"outputs": [{"name": "prediction", "shape": [2], "datatype": "FP64", "data": [4.0, 6.0]}]}
    )
    fn = servegraph.new_function("ensemble", kind="serving")
    fn.set_topology("router", VotingEnsemble)
    fn.add_model("near", class_name=Two)
    fn.add_model("far", model_url=peer.url + "/v2/models/far")
    tensor = {"name": "x", "shape": [2, 1], "datatype": "FP64", "data": [1.0, 2.0]}
    with fn.to_mock_server() as server:
        answer = server.test("/v2/models/infer", {"inputs": [tensor]})
    assert answer["outputs"][0]["data"] == [3.0, 4.0]
    assert peer.asked[0].json == {"inputs": [tensor]}
    assert peer.asked[0].path == "/v2/models/far/infer"


# -- how it is declared ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "other-function"}, "http://"),
        ({"url": "http://"}, "no host"),
        ({"url": "http://me:pw@host/"}, "Authorization"),
        ({}, "needs url"),
        ({"url_expression": "event['u']"}, "allowed_origins"),
        ({"url": "http://h/", "verify": False}, "always verified"),
        ({"url": "http://h/", "timeout": 0}, "timeout must be above 0"),
        ({"url": "http://h/", "retries": -1}, "retries cannot be negative"),
        ({"url": "http://h/", "body_expression": "event.x"}, "not allowed"),
        ({"url": "http://h/", "timeouts": 1}, "did you mean .timeout"),
        ({"url": "http://h:99999/"}, "cannot be read"),
    ],
)
def test_remote_step_declared_wrongly_is_refused_when_it_is_built(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        flow(**arguments)


def test_remote_step_as_an_object_is_told_by_its_class_and_arguments() -> None:
    step = RemoteStep("http://h/", retries=0, input_path="a", name="far")
    told = step.to_dict()
    assert told["class_name"] == "servegraph.serving.RemoteStep"
    assert (told["name"], told["input_path"]) == ("far", "a")
    assert {k: told["class_args"][k] for k in ("url", "retries")} == {"url": "http://h/", "retries": 0}
    assert RemoteStep(**told["class_args"]).to_dict()["class_args"] == told["class_args"]


def test_remote_step_given_as_an_object_runs(peer: Peer) -> None:
    with flow(RemoteStep(peer.url + "/x", method="PUT")) as server:
        server.test("/", {})
    assert (peer.asked[0].method, peer.asked[0].path) == ("PUT", "/x")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_remote_step_over_tls_trusts_only_who_is_certified(tmp_path: Path) -> None:
    certificate, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-out", certificate, "-keyout", key],
        check=True, capture_output=True,
    )  # fmt: skip
    with running_peer(lambda asked: Answer({"ok": 1}), (certificate, key)) as peer:
        with flow(url=peer.url, retries=0) as server:
            assert "could not be reached" in str(failure(server))
        assert peer.asked == []
        with flow(url=peer.url, verify=certificate) as server:
            assert server.test("/", {}) == {"ok": 1}
    with pytest.raises(GraphError, match=r"none\.pem"):
        flow(url=peer.url, verify=str(tmp_path / "none.pem"))


# -- several calls --------------------------------------------------------------------------------------------------


def numbered(asked: Asked) -> Answer:
    n = asked.json["n"]
    return Answer({"twice": 2 * n}, 400 if n == 3 else 200)


def test_batch_requests_are_answered_in_the_order_of_the_elements() -> None:
    first = threading.Event()

    def last_first(asked: Asked) -> Answer:
        n = asked.json["n"]
        if n == 2:
            first.set()
        return Answer({"n": n}, wait_for=first if n == 0 else None)

    with running_peer(last_first) as peer, flow(BatchHttpRequests, url=peer.url, max_in_flight=3) as server:
        assert server.test("/", [{"n": i} for i in range(3)]) == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_batch_requests_are_never_more_at_once_than_max_in_flight() -> None:
    def answer(asked: Asked) -> Answer:
        time.sleep(0.005)  # so that calls would overlap
        return Answer({})

    with running_peer(answer) as peer, flow(BatchHttpRequests, url=peer.url, max_in_flight=2) as server:
        assert server.test("/", [{}] * 12) == [{}] * 12
        assert peer.most_at_once <= 2


@pytest.mark.parametrize(
    ("on_failure", "third"), [("null", None), ("error", {"error": "RemoteError"})], ids=["null", "error"]
)
def test_batch_request_that_fails_with_a_policy_leaves_the_others(on_failure: str, third: Any) -> None:
    with running_peer(numbered) as peer, flow(BatchHttpRequests, url=peer.url, on_failure=on_failure) as server:
        answers = server.test("/", [{"n": 2}, {"n": 3}, {"n": 4}])
    assert (answers[0], answers[2]) == ({"twice": 4}, {"twice": 8})
    assert answers[1] == third or answers[1]["error"] == "RemoteError"


def test_batch_request_that_fails_fails_the_event_and_names_the_element() -> None:
    with running_peer(numbered) as peer, flow(BatchHttpRequests, url=peer.url) as server:
        error = failure(server, [{"n": 2}, {"n": 3}, {"n": 3}])
    assert isinstance(error, RemoteError)
    assert "element 1" in str(error)
    assert "400" in str(error)


def test_batch_with_retries_0_makes_one_try_and_leaves_headers_alone() -> None:
    headers = {"X-Mine": "yes"}
    with (
        running_peer(lambda asked: Answer(b"", 503)) as peer,
        flow(BatchHttpRequests, url=peer.url, headers=headers, retries=0, method="PUT", on_failure="null") as server,
    ):
        assert server.test("/", [{}]) == [None]
        assert len(peer.asked) == 1
    assert headers == {"X-Mine": "yes"}


def test_batch_with_paths_and_a_url_for_each_element_calls_each() -> None:
    with (
        running_peer(lambda asked: Answer({"p": asked.path})) as peer,
        flow(
            BatchHttpRequests,
            url=peer.url,
            url_expression="'/' + event['n']",
            body_expression="{'n': event['n']}",
            input_path="list",
            result_path="out",
        ) as server,
    ):
        assert server.test("/", {"list": [{"n": "a"}, {"n": "b"}]})["out"] == [{"p": "/a"}, {"p": "/b"}]
        assert isinstance(failure(server, {"list": 5}), UnprocessableError)


def test_batch_with_an_empty_list_makes_no_call(peer: Peer) -> None:
    with flow(BatchHttpRequests, url=peer.url) as server:
        assert server.test("/", []) == []
    assert peer.asked == []


def test_batch_with_an_unknown_failure_policy_is_refused() -> None:
    with pytest.raises(GraphError, match="valid: error, fail, null"):
        flow(BatchHttpRequests, url="http://h/", on_failure="ignore")
