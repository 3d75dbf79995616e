"""A component as a whole server: the paths of Seldon's REST interface on one step."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from servegraph.errors import MethodNotAllowedError, NotFoundError
from servegraph.graph.events import Event, Response
from servegraph.serving.dataplane import JSON, DataPlane
from servegraph.serving.description import SelfDescription
from servegraph.serving.seldon.answers import RawAnswer
from servegraph.serving.seldon.component_described import describe_component
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.message import Message
from servegraph.serving.seldon.metadata import ModelMetadata
from servegraph.serving.seldon.methods import Operation
from servegraph.serving.seldon.openapi import seldon_json
from servegraph.serving.seldon.plane import NO_JSON, SeldonPlane
from servegraph.serving.seldon.rest import feedback_answer_to_rest, message_to_rest
from servegraph.serving.seldon.step import GRPC, ComponentStep

_POST: Final = ("POST",)
_BOTH: Final = ("GET", "POST")
_GET: Final = ("GET",)
OPERATION_PATHS: Final[dict[str, tuple[Operation, tuple[str, ...]]]] = {
    "/predict": ("predict", _BOTH),
    "/api/v1.0/predictions": ("predict", _POST),
    "/api/v0.1/predictions": ("predict", _POST),
    "/send-feedback": ("send_feedback", _BOTH),
    "/api/v1.0/feedback": ("send_feedback", _POST),
    "/api/v0.1/feedback": ("send_feedback", _POST),
    "/transform-input": ("transform_input", _BOTH),
    "/transform-output": ("transform_output", _BOTH),
    "/route": ("route", _BOTH),
    "/aggregate": ("aggregate", _BOTH),
    "/health/status": ("health_status", _GET),
    "/api/v1.0/health/status": ("health_status", _GET),
}
"""For each path its operation and the HTTP methods that it takes."""
METADATA: Final = "metadata"
"""The path by which gRPC asks for the metadata."""


class ComponentEndpoint(ComponentStep):
    """Serves a component alone, as Seldon's microservice does.

    Args:
        context: the graph's context; supplied by the server.
        name: the step's name; supplied by the server.
        passthrough: hand the undecoded body of ``/predict`` to ``predict_raw``.
        metadata: YAML or JSON over what the component says of itself.
        flask_config: fields of the configuration that ``flask.current_app`` shows.
        **kwargs: arguments of `ComponentStep`.
    """

    data_plane: ClassVar[type[DataPlane]] = SeldonPlane

    def __init__(
        self,
        context: Any = None,
        name: str | None = None,
        passthrough: bool = False,
        metadata: str = "",
        flask_config: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        for supplied in ("full_event", "graph_step"):  # to every class that takes any argument
            kwargs.pop(supplied, None)
        super().__init__(context, name, flask_config=flask_config, **kwargs)
        self.passthrough = passthrough
        self._override = metadata
        self.metadata: ModelMetadata | None = None
        self._pages: dict[str, Any] = {
            "/health/ping": self._ping,
            "/metadata": self._metadata,
            "/api/v1.0/metadata": self._metadata,
            "/seldon.json": self._openapi,
        }

    def post_init(self, mode: str = "sync", **_: Any) -> None:
        """Have the component load its model, and read its metadata; raises what they raise."""
        self.metadata = ModelMetadata.of(self.user_object, self.component.identity.image, self._override)
        super().post_init(mode)

    def describe_self(self) -> SelfDescription:
        """The operations and paths of the component, and a request that it takes."""
        return describe_component(self.name, self.user_object, self.metadata)

    def operation_of(self, event: Event) -> Operation:
        """What an event's path asks for.

        Raises:
            NotFoundError: there is no such path.
            MethodNotAllowedError: the path is not for this HTTP method.
            SeldonMicroserviceException: there is no JSON.
        """
        known = OPERATION_PATHS.get(event.path)
        if known is None:
            raise NotFoundError(f"404 Not Found: there is no path {event.path[:200]!r}; a component has {_PATHS}")
        op, methods = known
        if event.method not in methods and event.trigger.kind != GRPC:
            raise MethodNotAllowedError(
                f"405 Method Not Allowed: {event.path} is for {' and '.join(methods)}", allow=methods
            )
        if event.body is None and op != "health_status":
            raise SeldonMicroserviceException(NO_JSON)
        return op

    def do_event(self, event: Event) -> Event:
        """The event with the answer as its body: JSON on REST, a `Message` on gRPC."""
        if self.answer_page(event):
            return event
        try:
            return self.answer(event)
        except Exception as exc:  # noqa: BLE001 - a handler of the component may have an answer to it
            return self._handled(exc, event)

    async def _do_event_async(self, event: Event) -> Event:
        if self.answer_page(event):
            return event
        try:
            return await self._answer_async(event)
        except Exception as exc:  # noqa: BLE001 - a handler of the component may have an answer to it
            return self._handled(exc, event)

    def answer_page(self, event: Event) -> bool:
        """Answer an event that does not concern the component's methods; whether it was one.

        Raises:
            MethodNotAllowedError: the page is not for this HTTP method.
            SeldonMicroserviceException: the metadata is invalid, or not there yet.
        """
        page = self._pages.get(event.path)
        if page is None:
            return False
        if event.method not in (*_GET, None):
            raise MethodNotAllowedError(f"405 Method Not Allowed: {event.path} is for GET", allow=_GET)
        event.body = page(event)
        return True

    def answer_failure(self, exc: Exception, event: Event) -> Response | None:
        """What the component's own error handlers make of a failure; ``None`` where there are none."""
        answer = self.handle_error(exc, event)
        if answer is None:
            return None
        status, fields, body = answer
        headers = {k: v for k, v in fields if k.lower() not in ("content-type", "content-length")}
        content_type = next((v for k, v in fields if k.lower() == "content-type"), JSON)
        return Response(headers, body, content_type, status)

    def _handled(self, exc: Exception, event: Event) -> Event:
        """The event with the answer of the component's own error handlers; raises the failure where there are none."""
        response = self.answer_failure(exc, event)
        if response is None:
            raise exc
        event.body = response
        return event

    def _written(self, event: Event, op: Operation, answer: Message | RawAnswer, transport: Any) -> Any:
        if transport == GRPC:
            return answer
        if isinstance(answer, RawAnswer):
            body = answer.value
            return Response(None, _verbatim(body), JSON, answer.status)
        return feedback_answer_to_rest(answer) if op == "send_feedback" else message_to_rest(answer)

    # -- pages ------------------------------------------------------------------------------------------------------

    @staticmethod
    def _ping(event: Event) -> Response:
        return Response(None, "pong", "text/html; charset=utf-8")

    def _metadata(self, event: Event) -> Any:
        if self.metadata is None:
            raise SeldonMicroserviceException("the component is not loaded yet", 503)
        return self.metadata.to_dict()

    @staticmethod
    def _openapi(event: Event) -> Any:
        return seldon_json()


_PAGES: Final = ("/health/ping", "/metadata", "/api/v1.0/metadata", "/seldon.json")
_OF_THE_SERVER: Final = ("/docs", "/openapi.json", "/metrics", "/v2/health/live", "/v2/health/ready")
_PATHS: Final = ", ".join((*OPERATION_PATHS, *_PAGES, *_OF_THE_SERVER))


def _verbatim(value: Any) -> Any:
    """A low-level answer as a response's body: JSON that is written already goes out as it is."""
    return b"null" if value is None else value
