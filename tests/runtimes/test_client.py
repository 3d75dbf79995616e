from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from servegraph import jsoncodec
from servegraph.errors import DeadlineError, RemoteError, RequestError, RequestFailedError
from servegraph.runtimes.client import invoke


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _answer(self, status: int, body: bytes, content_type: str = "", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if content_type:
            self.send_header("Content-Type", content_type)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        if path == "/base/echo":
            seen = {
                "method": self.command,
                "path": self.path,
                "type": self.headers.get("Content-Type"),
                "body": body.decode(),
                "mine": self.headers.get("X-Mine"),
            }
            self._answer(200, jsoncodec.dumps(seen), "application/json; charset=utf-8")
        elif path == "/text":
            self._answer(200, "grün".encode("latin-1"), "text/plain; charset=latin-1")
        elif path == "/bytes":
            self._answer(200, b"\x00\x01", "application/octet-stream")
        elif path == "/nothing":
            self._answer(204, b"")
        elif path == "/problem":
            self._answer(404, b'{"status":404,"detail":"no model"}', "application/problem+json")
        elif path == "/redirect":
            self._answer(302, b"", Location="http://elsewhere.invalid/")
        elif path == "/badjson":
            self._answer(200, b"{", "application/json")
        elif path == "/badjson500":
            self._answer(500, b"{", "application/json")
        elif path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "10")
            self.end_headers()
            self.wfile.write(b"abc")
            self.close_connection = True
        else:  # never answers
            self.server.held.wait(10)  # type: ignore[attr-defined]
            self.close_connection = True

    do_GET = do_POST = do_PUT = _serve


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.held = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.held.set()  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


def test_invoke_with_a_value_posts_json(url: str) -> None:
    seen = invoke(f"{url}/base/", "/echo?a=1&b=ä b", {"x": [1]}, None, {"X-Mine": "yes"}, 5)
    assert seen == {
        "method": "POST",
        "path": "/base/echo?a=1&b=%C3%A4%20b",
        "type": "application/json",
        "body": '{"x":[1]}',
        "mine": "yes",
    }


def test_invoke_without_a_body_gets(url: str) -> None:
    assert invoke(f"{url}/base", "echo")["method"] == "GET"


@pytest.mark.parametrize("body", ["x", b"x"])
def test_invoke_with_text_or_bytes_sends_them_as_they_are(url: str, body: Any) -> None:
    seen = invoke(f"{url}/base", "echo", body, "put", {"content-type": "text/x"})
    assert (seen["method"], seen["type"], seen["body"]) == ("PUT", "text/x", "x")


@pytest.mark.parametrize(("path", "value"), [("/text", "grün"), ("/bytes", b"\x00\x01"), ("/nothing", None)])
def test_invoke_decodes_the_answer_by_its_media_type(url: str, path: str, value: Any) -> None:
    assert invoke(url, path) == value


def test_invoke_answered_with_an_error_raises_with_status_and_body(url: str) -> None:
    with pytest.raises(RequestFailedError, match=r"failed \(404\): no model") as caught:
        invoke(url, "/problem", {})
    assert caught.value.status == 404
    assert caught.value.body == {"status": 404, "detail": "no model"}


def test_invoke_does_not_follow_redirects(url: str) -> None:
    with pytest.raises(RequestFailedError, match=r"redirected to http://elsewhere\.invalid/") as caught:
        invoke(url, "/redirect")
    assert caught.value.status == 302


def test_invoke_with_an_error_that_is_no_json_keeps_the_bytes(url: str) -> None:
    with pytest.raises(RequestFailedError) as caught:
        invoke(url, "/badjson500")
    assert caught.value.body == b"{"


@pytest.mark.parametrize("path", ["/badjson", "/short"])
def test_invoke_with_an_unreadable_answer_fails(url: str, path: str) -> None:
    with pytest.raises(RemoteError):
        invoke(url, path)


def test_invoke_that_gets_no_answer_in_time_fails(url: str) -> None:
    with pytest.raises(DeadlineError, match=r"within 0\.1 s"):
        invoke(url, "/held", timeout_s=0.1)


def test_invoke_of_a_closed_port_fails() -> None:
    with pytest.raises(RemoteError, match="gave no answer"):
        invoke("http://127.0.0.1:1", "/")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("127.0.0.1:80", "http://host:port"),
        ("ftp://h", "http://host:port"),
        ("http://", "http://host:port"),
        ("http://h:x", "cannot be read"),
        ("http://h/?q=1", "query"),
    ],
)
def test_invoke_of_something_that_is_no_url_says_so(target: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        invoke(target)


def test_invoke_of_a_url_with_a_password_does_not_repeat_it() -> None:
    with pytest.raises(RequestError) as caught:
        invoke("http://user:hunter2@h/")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("headers", [{"X": "a\r\nInjected: 1"}, {"X": "€"}])
def test_invoke_with_a_header_that_http_cannot_hold_is_refused(url: str, headers: dict[str, str]) -> None:
    with pytest.raises(RequestError):
        invoke(url, "/text", headers=headers)


def test_invoke_with_a_body_that_has_no_json_is_refused(url: str) -> None:
    with pytest.raises(RequestError, match="JSON"):
        invoke(url, "/text", {"x": object()})
