from __future__ import annotations

import hashlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from servegraph.errors import ModelLoadError
from servegraph.serving.store import FetchedModel, fetch_model
from servegraph.serving.store_http import is_public
from servegraph.serving.store_options import FetchOptions, host_is_listed

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Site:
    """A web server: its answers by path, and the requests it got."""

    url: str = ""
    answers: dict[str, Answer | Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def put(self, path: str, body: bytes, **headers: str) -> None:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[path] = (200, {"Content-Length": str(len(body)), **given}, body)

    def got(self, path: str) -> int:
        return [p for p, _ in self.requests].count(path)


def _serve(tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    site = Site()
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            site.requests.append((self.path, dict(self.headers)))
            answer = site.answers.get(self.path, (404, {"Content-Length": "0"}, b""))
            if callable(answer):
                answer(self)
                return
            status, headers, body = answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """Clients that go away are what is tested."""

    server = Server(("127.0.0.1", 0), Handler)
    server.over = over  # type: ignore[attr-defined]
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    site.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    over.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    yield from _serve()


@pytest.fixture
def other_site() -> Iterator[Site]:
    yield from _serve()


Fetch = Callable[..., FetchedModel]


@pytest.fixture
def fetch(tmp_path: Path) -> Fetch:
    def call(uri: str, suffix: str = "", **options: Any) -> FetchedModel:
        given = FetchOptions(**{"hosts": ("127.0.0.1", "localhost"), **options})
        return fetch_model(uri, suffix, cache_dir=tmp_path / "cache", options=given)

    return call


def _no_partial_download(tmp_path: Path) -> None:
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and p.suffix != ".lock"]
    assert not list((tmp_path / "cache").rglob(".part-*"))


def test_fetch_model_http_file_is_downloaded_once(site: Site, fetch: Fetch) -> None:
    body = bytes(range(256)) * 5000
    site.put("/models/m.pkl", body, ETag='"1"')

    first, second = (fetch(f"{site.url}/models/m.pkl", ".pkl") for _ in range(2))

    assert first.path == second.path
    assert first.path.name == "m.pkl"
    assert first.path.read_bytes() == body
    assert first.digest == hashlib.sha256(body).hexdigest()
    assert site.got("/models/model_spec.yaml") == 2
    site.put("/models/m.pkl", b"new", ETag='"2"')
    assert fetch(f"{site.url}/models/m.pkl").path.read_bytes() == b"new"
    assert first.path.read_bytes() == body


def test_fetch_model_http_without_validator_is_downloaded_each_time(site: Site, fetch: Fetch) -> None:
    site.put("/m.pkl", b"one")
    first = fetch(f"{site.url}/m.pkl")
    assert fetch(f"{site.url}/m.pkl").path == first.path
    site.put("/m.pkl", b"two")
    assert fetch(f"{site.url}/m.pkl").path.read_bytes() == b"two"


def test_fetch_model_http_damaged_copy_is_downloaded_again(site: Site, fetch: Fetch) -> None:
    site.put("/m.pkl", b"right", ETag='"1"')
    path = fetch(f"{site.url}/m.pkl").path
    path.write_bytes(b"wrong")
    assert fetch(f"{site.url}/m.pkl").path.read_bytes() == b"right"


def test_fetch_model_http_folder_needs_metadata_and_extras_come_when_used(site: Site, fetch: Fetch) -> None:
    site.put(
        "/iris/model_spec.yaml", b"model_file: a b.pkl\nextra_data: {x: sub/x.txt, y: '%s/y.txt'}" % site.url.encode()
    )
    site.put("/iris/a%20b.pkl", b"model")
    site.put("/iris/sub/x.txt", b"extra")
    site.put("/y.txt", b"elsewhere")

    for uri in (f"{site.url}/iris/", f"{site.url}/iris/model_spec.yaml"):
        fetched = fetch(uri, ".pkl")
        assert fetched.path.read_bytes() == b"model"
        assert site.got("/iris/sub/x.txt") == (0 if uri.endswith("/") else 1)
        assert fetched.extra["x"].get() == b"extra"
        assert fetched.extra["y"].get("utf-8") == "elsewhere"
    with pytest.raises(ModelLoadError, match=r"no servegraph-model.yaml or .* there that names the model's file"):
        fetch(f"{site.url}/nothing/")
    with pytest.raises(ModelLoadError, match=r"does not end in '.pkl' .the URI of a folder ends in '/'"):
        fetch(f"{site.url}/iris", ".pkl")


def test_fetch_model_http_metadata_beside_file_are_read(site: Site, fetch: Fetch) -> None:
    site.put("/iris/model_spec.json", b'{"model_file": "m.pkl", "tag": "v1"}')
    site.put("/iris/m.pkl", b"model")
    spec = fetch(f"{site.url}/iris/m.pkl").spec
    assert spec is not None
    assert spec.tag == "v1"


def test_fetch_model_http_signed_url_is_kept_secret_and_alone(site: Site, fetch: Fetch) -> None:
    site.put("/iris/m.pkl?sig=secret", b"model")
    fetched = fetch(f"{site.url}/iris/m.pkl?sig=secret", ".pkl")
    assert fetched.path.name == "m.pkl"
    assert "secret" not in fetched.uri + str(fetched.path)
    assert len(site.requests) == 1


def test_fetch_model_http_user_and_headers_are_sent(site: Site, fetch: Fetch) -> None:
    site.put("/m.pkl", b"model")
    fetched = fetch(site.url.replace("//", "//me:p%40ss@") + "/m.pkl", headers={"X-Token": "t"})
    sent = site.requests[0][1]
    assert sent["Authorization"] == "Basic bWU6cEBzcw=="
    assert sent["X-Token"] == "t"
    assert "p%40ss" not in fetched.uri


def test_fetch_model_http_metadata_that_lead_out_are_refused(site: Site, fetch: Fetch) -> None:
    site.put(
        "/iris/model_spec.yaml",
        b"model_file: m.pkl\nextra_data: {a: ../x, b: /x, c: 'file:///etc/passwd', d: 'ftp://h/x'}",
    )
    site.put("/iris/m.pkl", b"model")
    for extra in fetch(f"{site.url}/iris/").extra.values():
        with pytest.raises(ModelLoadError):
            extra.get()
    site.put("/iris/model_spec.yaml", b"model_file: ../m.pkl")
    with pytest.raises(ModelLoadError, match=r"model_spec.yaml: model_file: '../m.pkl' leads out"):
        fetch(f"{site.url}/iris/")


@pytest.mark.parametrize("status", [400, 403, 404, 500, 503, 204, 206])
def test_fetch_model_http_other_status_is_told(site: Site, fetch: Fetch, tmp_path: Path, status: int) -> None:
    site.answers["/m.pkl?a=b"] = (status, {"Content-Length": "0"}, b"")
    with pytest.raises(ModelLoadError, match=rf"/m.pkl\?a=\*\*\*: the server answered {status}"):
        fetch(f"{site.url}/m.pkl?a=b")
    _no_partial_download(tmp_path)


def test_fetch_model_http_failing_metadata_are_not_taken_for_none(site: Site, fetch: Fetch) -> None:
    site.put("/iris/m.pkl", b"model")
    site.answers["/iris/model_spec.yaml"] = (500, {"Content-Length": "0"}, b"")
    with pytest.raises(ModelLoadError, match=r"model_spec.yaml: the server answered 500"):
        fetch(f"{site.url}/iris/m.pkl")


def test_fetch_model_http_truncated_body_is_refused(site: Site, fetch: Fetch, tmp_path: Path) -> None:
    site.answers["/m.pkl"] = (200, {"Content-Length": "100", "ETag": "1"}, b"x" * 60)
    with pytest.raises(ModelLoadError, match=r"the download ended after 60 of 100 bytes"):
        fetch(f"{site.url}/m.pkl")
    _no_partial_download(tmp_path)
    site.put("/m.pkl", b"x" * 100, ETag="1")
    assert fetch(f"{site.url}/m.pkl").path.stat().st_size == 100


def test_fetch_model_http_truncated_chunks_are_refused(site: Site, fetch: Fetch, tmp_path: Path) -> None:
    site.answers["/m.pkl"] = (200, {"Transfer-Encoding": "chunked"}, b"5\r\nhello\r\n50\r\nabc")
    with pytest.raises(ModelLoadError, match=r"the answer cannot be read: IncompleteRead"):
        fetch(f"{site.url}/m.pkl")
    _no_partial_download(tmp_path)


def test_fetch_model_http_chunked_body_is_whole(site: Site, fetch: Fetch) -> None:
    site.answers["/m.pkl"] = (200, {"Transfer-Encoding": "chunked"}, b"5\r\nhello\r\n3\r\nabc\r\n0\r\n\r\n")
    assert fetch(f"{site.url}/m.pkl").path.read_bytes() == b"helloabc"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Length": "1000000000000"}, b"x"),
        ({"Transfer-Encoding": "chunked"}, b"1000\r\n" + b"x" * 4096 + b"\r\n0\r\n\r\n"),
        ({}, b"x" * 4096),
    ],
)
def test_fetch_model_http_larger_than_allowed_is_refused(
    site: Site, fetch: Fetch, tmp_path: Path, headers: dict[str, str], body: bytes
) -> None:
    site.answers["/m.pkl"] = (200, headers, body)
    with pytest.raises(ModelLoadError, match=r"/m.pkl: .*(more than the 1000 that are|larger than the 1000 bytes)"):
        fetch(f"{site.url}/m.pkl", max_bytes=1000)
    _no_partial_download(tmp_path)


def test_fetch_model_http_huge_metadata_are_refused(site: Site, fetch: Fetch) -> None:
    site.put("/iris/model_spec.yaml", b"#" * (2 * 1024**2))
    with pytest.raises(ModelLoadError, match=r"model_spec.yaml: larger than 1048576 bytes"):
        fetch(f"{site.url}/iris/")


def test_fetch_model_http_encoded_body_is_refused_unless_that_is_the_file(site: Site, fetch: Fetch) -> None:
    site.put("/m.pkl", b"model", Content_Encoding="gzip")
    site.put("/m.tar.gz", b"model", Content_Encoding="gzip")
    with pytest.raises(ModelLoadError, match=r"gzip-encoded, which was not asked for"):
        fetch(f"{site.url}/m.pkl")
    assert fetch(f"{site.url}/m.tar.gz").path.read_bytes() == b"model"


def test_fetch_model_http_redirect_on_same_server_is_followed(site: Site, fetch: Fetch) -> None:
    site.answers["/m.pkl"] = (302, {"Location": "real/m.pkl", "Content-Length": "0"}, b"")
    site.put("/real/m.pkl", b"model")
    assert fetch(f"{site.url}/m.pkl").path.read_bytes() == b"model"


def test_fetch_model_http_redirect_to_another_server_is_refused(site: Site, other_site: Site, fetch: Fetch) -> None:
    other_site.put("/m.pkl", b"model")
    port = other_site.url.rpartition(":")[2]
    for target in (
        f"{other_site.url}/m.pkl", f"http://localhost:{port}/m.pkl", f"//127.0.0.1:{port}/m.pkl",
        site.url.replace("127.0.0.1", "localhost") + "/m.pkl", "http://169.254.169.254/latest/meta-data",
        "https://example.org/m.pkl", "file:///etc/passwd", "gopher://127.0.0.1/", "http://[::1", "http:///x",
    ):  # fmt: skip
        site.answers["/m.pkl"] = (302, {"Location": target, "Content-Length": "0"}, b"")
        with pytest.raises(ModelLoadError):
            fetch(f"{site.url}/m.pkl")
    assert other_site.requests == []


def test_fetch_model_http_redirect_loop_ends(site: Site, fetch: Fetch) -> None:
    site.answers["/m.pkl"] = (301, {"Location": "/m.pkl", "Content-Length": "0"}, b"")
    with pytest.raises(ModelLoadError, match=r"more than 5 redirects"):
        fetch(f"{site.url}/m.pkl")
    assert site.got("/m.pkl") == 6


@pytest.mark.parametrize("where", ["head", "body", "unmeasured body"])
def test_fetch_model_http_server_that_trickles_is_given_up(
    site: Site, fetch: Fetch, tmp_path: Path, where: str
) -> None:
    def trickle(handler: BaseHTTPRequestHandler) -> None:
        head = {"head": b"HTTP/1.1 200 OK\r\nX-A: ", "body": b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"}
        handler.wfile.write(head.get(where, b"HTTP/1.1 200 OK\r\n\r\n"))
        while not handler.server.over.wait(0.02):  # type: ignore[attr-defined]
            handler.wfile.write(b"x")

    site.answers["/m.pkl?x"] = trickle
    with pytest.raises(ModelLoadError, match=r"it took longer than 0.3 s"):
        fetch(f"{site.url}/m.pkl?x", timeout_s=0.3)
    _no_partial_download(tmp_path)


def test_fetch_model_http_silent_server_is_given_up(site: Site, fetch: Fetch) -> None:
    site.answers["/m.pkl?x"] = lambda handler: handler.server.over.wait() and None  # type: ignore[attr-defined]
    with pytest.raises(ModelLoadError, match=r"nothing was received for 0.2 s"):
        fetch(f"{site.url}/m.pkl?x", stall_s=0.2)


def test_fetch_model_http_nobody_listens_is_told(free_port: int, fetch: Fetch) -> None:
    with pytest.raises(ModelLoadError, match=f"http://127.0.0.1:{free_port}/m.pkl: it cannot be reached"):
        fetch(f"http://127.0.0.1:{free_port}/m.pkl")


def test_fetch_model_http_answer_that_is_no_http_is_told(site: Site, fetch: Fetch) -> None:
    def garbage(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"SSH-2.0-OpenSSH\r\n")
        handler.close_connection = True

    site.answers["/m.pkl?x"] = garbage
    with pytest.raises(ModelLoadError, match=r"the answer cannot be read: BadStatusLine"):
        fetch(f"{site.url}/m.pkl?x")


@pytest.mark.parametrize(
    "uri", ["http://", "http:///m.pkl", "http://h:99999/m", "http://h:0/m", "http://[::1/m", "http://h/m?a b"]
)
def test_fetch_model_http_malformed_url_is_refused(uri: str, fetch: Fetch) -> None:
    with pytest.raises(ModelLoadError, match=r"not a URL"):
        fetch(uri)


_PRIVATE = [
    "127.0.0.1", "2130706433", "0177.0.0.1", "0x7f.1", "127.1", "0.0.0.0", "10.0.0.1", "192.168.1.1", "172.16.0.1",
    "169.254.169.254", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:169.254.169.254]", "[fe80::1]",
    "[fd00:ec2::254]",
    "[64:ff9b::a9fe:a9fe]", "[2002:7f00:1::]", "localhost", "100.64.0.1", "224.0.0.1", "[ff02::1]", "255.255.255.255",
]  # fmt: skip


@pytest.mark.parametrize("host", _PRIVATE)
def test_fetch_model_http_private_address_is_not_connected_to(
    host: str, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("it connected"))
    with pytest.raises(ModelLoadError, match=r"not a public one: list the host"):
        fetch(f"http://{host}/m.pkl", hosts=None)


def test_fetch_model_http_name_that_changes_its_address_is_connected_to_the_checked_one(
    site: Site, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(site.url.rpartition(":")[2])
    answers = iter(["93.184.216.34", "127.0.0.1"])
    connected: list[str] = []
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]
    )

    def connect(address: tuple[str, int], **_: Any) -> socket.socket:
        connected.append(address[0])
        raise ConnectionRefusedError(111, "refused")

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(ModelLoadError, match=r"cannot be reached"):
        fetch(f"http://rebind.example:{port}/m.pkl?x", hosts=None)
    assert connected == ["93.184.216.34"]


def test_fetch_model_http_host_that_is_not_listed_is_refused(site: Site, fetch: Fetch) -> None:
    with pytest.raises(ModelLoadError, match=r"may not be fetched from '127.0.0.1'; allowed hosts: example.org"):
        fetch(f"{site.url}/m.pkl", hosts=("example.org",))
    with pytest.raises(ModelLoadError, match=r"models may not come by http://"):
        fetch(f"{site.url}/m.pkl", schemes=("https",))
    assert site.requests == []


def test_host_is_listed_takes_names_and_what_is_below_them() -> None:
    assert host_is_listed("A.example.", ["a.example"])
    assert host_is_listed("x.y.example", ["*.example"])
    assert not host_is_listed("example", ["*.example"])
    assert not host_is_listed("badexample", ["*.example", "example"])


def test_is_public_knows_public_addresses() -> None:
    assert is_public("93.184.216.34")
    assert is_public("2606:2800:220:1:248:1893:25c8:1946")
    assert is_public("64:ff9b::5db8:d822")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=servegraph-test", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture
def secure_site(certificate: Path) -> Iterator[Site]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    yield from _serve(context)


def test_fetch_model_https_is_verified(secure_site: Site, certificate: Path, fetch: Fetch) -> None:
    secure_site.put("/m.pkl", b"model")
    url = f"{secure_site.url}/m.pkl"
    with pytest.raises(ModelLoadError, match=r"m.pkl: TLS: .*CERTIFICATE_VERIFY_FAILED"):
        fetch(url)
    trusted = str(certificate / "cert.pem")
    with pytest.raises(ModelLoadError, match=r"m.pkl: TLS: .*CERTIFICATE_VERIFY_FAILED"):
        fetch(url.replace("127.0.0.1", "localhost"), ca_file=trusted)  # the certificate is for another name
    assert secure_site.requests == []
    assert fetch(url, ca_file=trusted).path.read_bytes() == b"model"


def test_fetch_model_https_redirect_to_http_is_refused(
    secure_site: Site, site: Site, certificate: Path, fetch: Fetch
) -> None:
    secure_site.answers["/m.pkl"] = (302, {"Location": f"{site.url}/m.pkl", "Content-Length": "0"}, b"")
    with pytest.raises(ModelLoadError, match=r"is redirected to http://127.0.0.1"):
        fetch(f"{secure_site.url}/m.pkl", ca_file=str(certificate / "cert.pem"))
    same_port = secure_site.url.replace("https", "http")
    secure_site.answers["/m.pkl"] = (302, {"Location": f"{same_port}/m.pkl", "Content-Length": "0"}, b"")
    with pytest.raises(ModelLoadError, match=r"is redirected to http://127.0.0.1"):
        fetch(f"{secure_site.url}/m.pkl", ca_file=str(certificate / "cert.pem"))
    assert site.requests == []
