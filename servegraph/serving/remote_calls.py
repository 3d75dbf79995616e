"""What the remote steps share: where a call goes, and what it carries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from servegraph import jsoncodec
from servegraph.errors import GraphError, StepError
from servegraph.graph.events import Event
from servegraph.graph.expressions import compile_expression
from servegraph.graph.media import parse_media_type
from servegraph.graph.paths import compile_input_path, compile_result_path
from servegraph.graph.steps import Step
from servegraph.serving.remote_client import Outgoing, RemoteClient, decoded
from servegraph.serving.remote_options import (
    RemoteOptions,
    checked_headers,
    checked_target,
    joined,
    origin_of,
    printable,
    read_base,
)

PATH: Final = "$path"
_NOT_IN_SPECS: Final = frozenset({"self", "__class__", "name", "context", "graph_step", "input_path", "result_path"})
_BODILESS: Final = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class CallSpec:
    """What a step's calls look like, as declared; see `RemoteStep` for the meaning of each."""

    url: str | None
    subpath: str | None
    method: str | None
    headers: Mapping[str, str] | None
    url_expression: str | None
    body_expression: str | None
    headers_expression: str | None
    return_json: bool
    input_path: str | None
    result_path: str | None


class RemoteCalls:
    """A step that calls a service: it makes one call for one value."""

    mutates: ClassVar[bool] = False

    def __init__(
        self,
        spec: CallSpec,
        options: RemoteOptions,
        name: str,
        graph_step: Step | None,
        arguments: Mapping[str, Any],
    ) -> None:
        self.name = name
        self._arguments = {k: v for k, v in arguments.items() if k not in _NOT_IN_SPECS and v not in (None, ())}
        if spec.url is None and (spec.url_expression is None or not options.allowed_origins):
            raise GraphError(f"step {name!r} needs url (or url_expression together with allowed_origins)")
        self.url = None if spec.url is None else read_base(spec.url)
        self.subpath = spec.subpath
        self.method = spec.method.upper() if spec.method else None
        self.headers = checked_headers(spec.headers or {}, "headers")
        self.return_json = spec.return_json
        self.input_path = spec.input_path
        self.result_path = spec.result_path
        self.options = options
        self._is_route = graph_step is not None and _is_route(graph_step)
        self._client = RemoteClient(name, options)
        self._origins = options.allowed_origins | ({origin_of(self.url)} if self.url else set())
        self._url_of = _expression(spec.url_expression)
        self._body_of = _expression(spec.body_expression)
        self._headers_of = _expression(spec.headers_expression)
        self._read = compile_input_path(spec.input_path)
        self._write = compile_result_path(spec.result_path)

    def to_dict(self) -> dict[str, Any]:
        """The step as part of a spec: class, name and arguments."""
        cls = type(self)
        ours = cls.__module__ == "servegraph.serving.remote"
        module = "servegraph.serving." if ours else "" if cls.__module__ == "__main__" else cls.__module__ + "."
        paths = {k: v for k in ("input_path", "result_path") if (v := getattr(self, k)) is not None}
        return {
            "class_name": module + cls.__qualname__,
            "name": self.name,
            "class_args": dict(self._arguments),
            **paths,
        }

    async def astart(self) -> None:
        """Make the connection pool; called by the server on its event loop."""
        await self._client.start()

    async def aclose(self) -> None:
        """Close the connections; called by the server on its event loop."""
        await self._client.close()

    async def call(self, event: Event, value: Any) -> Any:
        """What the service answers for a value."""
        call = self._outgoing(event, value)
        answer = await self._client.send(call)
        if self._is_route and call.method == "GET":
            media = parse_media_type(answer.content_type)
            if media.essence == "text/plain":  # a model says so in a sentence that it is ready
                return media.decode(answer.content)
        return decoded(answer, self.return_json, self.name)

    def _outgoing(self, event: Event, value: Any) -> Outgoing:
        method = self.method or event.method or "POST"
        if self._is_route and event.method == "GET":
            method = "GET"  # asking a model about itself stays asking
        fields = dict(self.headers)
        if self._headers_of is not None:
            fields.update(checked_headers(self._headers_of(value, self.url), "headers_expression"))
        event_id = printable(event.id)
        own = {"x-request-id": event_id, "mlrun-event-id": event_id}
        headers = {k: v for k, v in fields.items() if k.lower() not in own} | own
        content, content_type = self._content(event, value) if method not in _BODILESS else (None, None)
        if content_type and not any(name.lower() == "content-type" for name in headers):
            headers["content-type"] = content_type
        passes = self.options.pass_client_errors
        passes = self._is_route if passes is None else passes
        return Outgoing(method, self._target(event, value), headers, content, event.deadline, passes)

    def _target(self, event: Event, value: Any) -> str:
        if self._url_of is not None:
            base = checked_target(self._url_of(value, self.url), self.url, self._origins)
        else:
            assert self.url is not None
            base = self.url
        if self.subpath is None:
            # As a route of a router: the path is the operation, and stands behind the model's URL.
            return joined(base, event.path) if self._is_route and self._url_of is None else base
        if self.subpath == PATH:
            return joined(base, event.path)
        return f"{base.rstrip('/')}/{self.subpath.lstrip('/')}" if self.subpath else base

    def _content(self, event: Event, value: Any) -> tuple[bytes | None, str | None]:
        if isinstance(value, (bytes, str)) and self._body_of is None:
            raw = value.encode() if isinstance(value, str) else value
            return raw, event.content_type or ("text/plain; charset=utf-8" if isinstance(value, str) else None)
        if self._body_of is not None:
            value = self._body_of(value, self.url)
        elif value is None:
            return None, None
        try:
            return jsoncodec.dumps(value), "application/json"
        except (TypeError, ValueError) as exc:
            raise StepError(f"step {self.name!r}: the body cannot be written as JSON: {exc}", step=self.name) from exc


def _is_route(step: Step) -> bool:
    """Whether a step is a route of a router and not in a graph of its own."""
    try:
        return step.graph is None
    except GraphError:
        return True


def _expression(text: str | None) -> Callable[[Any, Any], Any] | None:
    return None if text is None else compile_expression(text, ("event", "endpoint"))
