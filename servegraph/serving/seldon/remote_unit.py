"""A node of a tree that runs elsewhere: asked over REST or gRPC, through connections that are kept.

A request's headers go along, except for those of its connection and of its body. An answer with an error is passed
through: its status and its body are what the caller of the tree gets.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from servegraph import jsoncodec
from servegraph.errors import GraphError, RemoteError
from servegraph.graph.events import Event
from servegraph.importing import import_extra
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.json_reading import read_json
from servegraph.serving.seldon.message import Feedback, Message
from servegraph.serving.seldon.rest import feedback_to_rest, message_from_rest, message_to_rest, meta_from_rest
from servegraph.serving.seldon.tree_errors import PassedThroughError
from servegraph.serving.seldon.tree_trip import PUID

if TYPE_CHECKING:
    import httpx

KEPT_BACK: Final = frozenset((
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade", "http2-settings", "expect", "host", "accept-encoding", "content-type",
    "content-length", "content-encoding", "content-md5", "digest", "seldon-predictor",
))  # fmt: skip
"""The headers of a request that no other server is sent: those of its connection, those of its body, and the name of a
predictor of this deployment."""

PATHS: Final[Mapping[str, str]] = {
    "predict": "/predict",
    "transform_input": "/transform-input",
    "transform_output": "/transform-output",
    "route": "/route",
    "aggregate": "/aggregate",
    "send_feedback": "/send-feedback",
}
METHODS: Final[Mapping[str, str]] = {
    "predict": "/seldon.protos.Model/Predict",
    "transform_input": "/seldon.protos.Transformer/TransformInput",
    "transform_output": "/seldon.protos.OutputTransformer/TransformOutput",
    "route": "/seldon.protos.Router/Route",
    "aggregate": "/seldon.protos.Combiner/Aggregate",
    "send_feedback": "/seldon.protos.Model/SendFeedback",
}
_MESSAGE_KEYS: Final = ("data", "jsonData", "strData", "binData")
_KEEPALIVE_S: Final = 1.0  # below the two seconds after which Seldon's microservices close an idle connection
_PAGE_S: Final = 5.0
_NAME: Final = re.compile(r"[a-z0-9_.-]+")
_HTTP_OF_GRPC: Final[Mapping[str, int]] = {
    "INVALID_ARGUMENT": 400, "OUT_OF_RANGE": 400, "FAILED_PRECONDITION": 400, "NOT_FOUND": 404,
    "UNIMPLEMENTED": 501, "RESOURCE_EXHAUSTED": 429, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504,
    "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403,
}  # fmt: skip


class RemoteUnit:
    """The operations of a node behind an address.

    Args:
        node: its name, for errors.
        endpoint: ``host``, ``port`` and ``type``: ``REST`` or ``GRPC``.
        forward: the headers of a request that go along; all but `KEPT_BACK` where it is left out.

    Raises:
        GraphError: the endpoint has no host or no port.
    """

    def __init__(self, node: str, endpoint: Mapping[str, Any], forward: tuple[str, ...] | None = None) -> None:
        self.node = node
        self.kind = str(endpoint.get("type", "REST"))
        host, port = endpoint.get("host"), endpoint.get("port")
        if not host or not port:
            raise GraphError(f"node {node!r} runs elsewhere: its endpoint needs service_host and a port", step=node)
        self.address = f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
        self._forward = None if forward is None else tuple(h.lower() for h in forward)
        self._client: httpx.AsyncClient | None = None
        self._channel: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def function(self, op: str) -> Callable[[Event], Awaitable[Message]]:
        """A coroutine function of the event whose body is the input of an operation."""
        send = self._rest if self.kind == "REST" else self._grpc

        async def call(event: Event) -> Message:
            return await send(op, event)

        return call

    async def ready(self) -> bool:
        """Whether something listens at the address."""
        host, _, port = self.address.rpartition(":")
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(host.strip("[]"), int(port)), 1.0)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    async def health(self, event: Event) -> Any:
        """What the node says of its health, as a JSON value.

        Over gRPC there is no such question: there it is well when something listens.

        Raises:
            PassedThroughError: it is not well.
            RemoteError: it cannot be reached, or says nothing.
        """
        url = f"http://{self.address}/health/status"
        try:
            if self.kind == "REST":
                sent = self._send("GET", url, self.headers(event))
                return _value(*await asyncio.wait_for(sent, _PAGE_S), url)
        except TimeoutError as exc:
            raise RemoteError(f"{url} has said nothing for {_PAGE_S:g} s") from exc
        if not await self.ready():
            raise RemoteError(f"{self.address} cannot be reached")
        return message_to_rest(Message("strData", "healthy"))

    async def metadata(self) -> dict[str, Any]:
        """What the node says of itself.

        Raises:
            PassedThroughError: it answered with an error.
            RemoteError: it cannot be reached, or answered with something else.
        """
        asked = self._rest_metadata() if self.kind == "REST" else self._grpc_metadata()
        try:
            found = await asyncio.wait_for(asked, _PAGE_S)
        except TimeoutError as exc:
            raise RemoteError(f"{self.address} has said nothing of itself for {_PAGE_S:g} s") from exc
        if not isinstance(found, dict):
            raise RemoteError(f"{self.address} answered with no metadata")
        return found

    async def aclose(self) -> None:
        """Close the connections."""
        client, channel, self._client, self._channel = self._client, self._channel, None, None
        if client is not None:
            await client.aclose()
        if channel is not None:
            await channel.close()

    def headers(self, event: Event) -> dict[str, str]:
        """The headers that go along with a request."""
        given = event.headers
        if self._forward is not None:
            sent = {name: given[name] for name in self._forward if name in given}
        else:
            named = {name.strip().lower() for name in given.get("connection", "").split(",")}
            sent = {k: v for k, v in given.items() if k not in KEPT_BACK and k not in named and _can_go(k, v)}
        body = event.body
        first = body[0] if isinstance(body, list) and body else body
        puid = first.meta.puid if isinstance(first, Message) else given.get(PUID, "")
        sent.pop(PUID, None)
        if _can_go(PUID, puid):
            sent[PUID] = puid
        return sent

    # -- REST -------------------------------------------------------------------------------------------------------

    async def _rest(self, op: str, event: Event) -> Message:
        body = event.body
        value: Any
        if isinstance(body, Feedback):
            value = feedback_to_rest(body)
        else:
            value = [message_to_rest(m) for m in body] if isinstance(body, list) else message_to_rest(body)
        headers = {**self.headers(event), "content-type": "application/json"}
        url = f"http://{self.address}{PATHS[op]}"
        status, content = await self._send("POST", url, headers, _text(value))
        return self._read(status, content, url)

    async def _rest_metadata(self) -> Any:
        url = f"http://{self.address}/metadata"
        status, content = await self._send("GET", url)
        return _value(status, content, url)

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, content: bytes | None = None
    ) -> tuple[int, bytes]:
        """Status and body of the answer to a request."""
        httpx = import_extra("httpx", feature=f"remote node {self.node!r}", extra="http")
        try:
            response = await self._http(httpx).request(method, url, content=content, headers=headers)
        except httpx.HTTPError as exc:
            raise RemoteError(f"{url} cannot be reached: {type(exc).__name__}: {exc}") from exc
        return response.status_code, response.content

    def _read(self, status: int, content: bytes, url: str) -> Message:
        value = _value(status, content, url)
        if isinstance(value, list):  # what routers of other servers answer
            return Message("jsonData", value)
        try:
            if isinstance(value, dict) and not any(k in value for k in _MESSAGE_KEYS):
                return Message(meta=meta_from_rest(value.get("meta", {})))
            reply = message_from_rest(value)
        except SeldonMicroserviceException as exc:
            raise RemoteError(f"{url} answered with no message: {exc}") from exc
        reply.source = None
        return reply

    def _http(self, httpx: Any) -> httpx.AsyncClient:
        """The client of the running loop."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            limits = httpx.Limits(max_connections=256, max_keepalive_connections=64, keepalive_expiry=_KEEPALIVE_S)
            # The time limit is that of the node and of the request; both cancel.
            self._client = httpx.AsyncClient(timeout=None, limits=limits, trust_env=False)
            self._loop = loop
        return self._client

    # -- gRPC -------------------------------------------------------------------------------------------------------

    async def _grpc(self, op: str, event: Event) -> Message:
        from servegraph.serving.seldon import wire

        body = event.body
        if isinstance(body, Feedback):
            sent = wire.feedback_to_wire(body)
        else:
            sent = wire.messages_to_wire(body) if isinstance(body, list) else wire.message_to_wire(body)
        reply = await self._call(METHODS[op], sent, self.headers(event))
        try:
            message: Message = wire.message_from_wire(reply)
        except SeldonMicroserviceException as exc:
            raise RemoteError(f"{self.address} answered with no message: {exc}") from exc
        message.source = None
        return message

    async def _grpc_metadata(self) -> Any:
        from servegraph.serving.seldon.metadata import model_from_wire

        return model_from_wire(await self._call("/seldon.protos.Model/Metadata", b"", {}))

    async def _call(self, method: str, data: bytes, headers: Mapping[str, str]) -> bytes:
        """The bytes of the answer to a call."""
        grpc = import_extra("grpc", feature=f"remote node {self.node!r}", extra="grpc")
        call = self._rpc_channel(grpc).unary_unary(method)
        try:
            # grpcio says itself who it is.
            sent = tuple((name, value) for name, value in headers.items() if name != "user-agent")
            reply: bytes = await call(data, metadata=sent)
        except grpc.aio.AioRpcError as exc:
            status = _HTTP_OF_GRPC.get(exc.code().name, 500)
            if exc.code().name == "UNAVAILABLE":
                raise RemoteError(f"{self.address} cannot be reached: {exc.details()}") from exc
            info = {"code": -1, "info": exc.details() or exc.code().name, "reason": exc.code().name, "status": 1}
            raise PassedThroughError(status, {"status": info}) from exc
        return reply

    def _rpc_channel(self, grpc: Any) -> Any:
        loop = asyncio.get_running_loop()
        if self._channel is None or self._loop is not loop:
            options = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
            self._channel = grpc.aio.insecure_channel(self.address, options=options)
            self._loop = loop
        return self._channel


def _can_go(name: str, value: str) -> bool:
    """Whether gRPC and HTTP can both carry a header."""
    if not name or name.startswith((":", "grpc-")) or name.endswith("-bin"):
        return False
    return bool(value) and value.isascii() and value.isprintable() and _NAME.fullmatch(name) is not None


def _text(value: Any) -> bytes:
    """The JSON text of a request, with Python's words for NaN and infinity, which Seldon's servers read."""
    text = jsoncodec.dumps(value)
    if b"null" in text:
        try:
            jsoncodec.check_finite(value)
        except ValueError:
            return json.dumps(value, default=_plain).encode()
    return text


def _plain(value: Any) -> Any:
    """A value that Python's own codec does not know: an array, or a number of one, as what it knows."""
    return value.tolist() if hasattr(value, "tolist") else jsoncodec.loads(jsoncodec.dumps(value))


def _value(status: int, content: bytes, url: str) -> Any:
    """The JSON value of an answer.

    Raises:
        PassedThroughError: it is an error.
        RemoteError: it is no JSON.
    """
    try:
        value = read_json(content) if content else {}
    except jsoncodec.JSONDecodeError as exc:
        if status == 200:
            raise RemoteError(f"{url} answered with something other than JSON") from exc
        raise PassedThroughError(status, content, "text/plain; charset=utf-8") from exc
    if status != 200:
        raise PassedThroughError(status, value)
    return value
