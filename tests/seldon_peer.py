"""A real server that speaks Seldon's protocol, over HTTP and gRPC: answers as told, remembers what it was asked."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import grpc
from google.protobuf import json_format

from servegraph.serving.seldon.proto import prediction_pb2


@dataclass
class Asked:
    """One request."""

    path: str
    headers: dict[str, str]
    body: Any
    """The JSON object, or the protobuf message."""
    port: int = 0
    """The caller's port: the same for requests on the same connection."""

    @property
    def json(self) -> Any:
        return self.body if isinstance(self.body, dict) else json_format.MessageToDict(self.body)


@dataclass
class Answer:
    """What is sent back; ``body`` is a JSON object, text, or for gRPC a JSON object or the name of a status."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


def echo(asked: Asked) -> Answer:
    """The request's message, with generated names; of feedback nothing but a meta, of several messages the first."""
    message = asked.json
    if "seldonMessages" in message:
        message = message["seldonMessages"][0]
    if "reward" in message or "request" in message:
        return Answer({"meta": {}})
    return Answer({"meta": {}, **message})


@dataclass
class Peer:
    """The server: ``answer`` decides, ``asked`` remembers."""

    answer: Callable[[Asked], Answer]
    http: str = ""
    grpc: str = ""
    asked: list[Asked] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def handle(self, asked: Asked) -> Answer:
        with self.lock:
            self.asked.append(asked)
        return self.answer(asked)


def _handler(peer: Peer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            is_form = headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
            text = parse_qs(raw.decode())["json"][0] if is_form else raw.decode()
            answer = peer.handle(Asked(self.path, headers, json.loads(text), self.client_address[1]))
            body = answer.body.encode() if isinstance(answer.body, str) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(body)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


class _Methods(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def service(self, details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        kinds = {"Aggregate": prediction_pb2.SeldonMessageList, "SendFeedback": prediction_pb2.Feedback}
        kind = kinds.get(name, prediction_pb2.SeldonMessage)

        def call(request: Any, context: Any) -> Any:
            answer = self._peer.handle(Asked(details.method, dict(context.invocation_metadata()), request))
            if isinstance(answer.body, str):
                context.abort(grpc.StatusCode[answer.body], "as it was told")
            return json_format.ParseDict(answer.body, prediction_pb2.SeldonMessage())

        return grpc.unary_unary_rpc_method_handler(
            call,
            request_deserializer=kind.FromString,
            response_serializer=prediction_pb2.SeldonMessage.SerializeToString,
        )


@contextmanager
def seldon_peer(
    answer: Callable[[Asked], Answer] = echo, certificate: tuple[Path, Path] | None = None
) -> Iterator[Peer]:
    """A peer that serves HTTP and gRPC on free ports in the ``with`` block.

    With a certificate and its key it speaks TLS, and talks only to those who have the same one.
    """
    peer = Peer(answer)
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(peer)) as web:
        web.daemon_threads = True
        rpc = grpc.server(ThreadPoolExecutor(8), handlers=[_Methods(peer)])
        peer.http = f"127.0.0.1:{web.server_address[1]}"
        if certificate is None:
            peer.grpc = f"127.0.0.1:{rpc.add_insecure_port('127.0.0.1:0')}"
        else:
            chain, key = certificate
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(chain))
            context.load_cert_chain(chain, key)
            context.verify_mode = ssl.CERT_REQUIRED
            web.socket = context.wrap_socket(web.socket, server_side=True)
            pair = [(key.read_bytes(), chain.read_bytes())]
            secure = grpc.ssl_server_credentials(pair, chain.read_bytes(), require_client_auth=True)
            peer.grpc = f"127.0.0.1:{rpc.add_secure_port('127.0.0.1:0', secure)}"
        rpc.start()
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield peer
        finally:
            web.shutdown()
            thread.join()
            rpc.stop(None).wait()
