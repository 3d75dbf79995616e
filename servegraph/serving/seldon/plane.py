"""The data plane of Seldon's protocol: how its requests are read, and how failures are answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from servegraph import jsoncodec
from servegraph.errors import (
    MethodNotAllowedError,
    RequestError,
    ServegraphError,
    StepError,
    UnavailableError,
    from_users_line,
)
from servegraph.graph.calls import Offloader
from servegraph.graph.context import GraphContext
from servegraph.graph.events import Event, Response
from servegraph.graph.media import parse_media_type
from servegraph.graph.plan import Plan
from servegraph.serving.dataplane import JSON, DataPlane, DataPlaneOptions, Reply
from servegraph.serving.seldon.errors import INTERNAL, SeldonMicroserviceException, chosen_failure, envelope
from servegraph.serving.seldon.forms import json_field, multipart_value
from servegraph.serving.seldon.json_reading import read_json
from servegraph.serving.seldon.tree_errors import NodeError, reason_of

NO_JSON: Final = "Can't find JSON in data"
_MOST_INFO: Final = 8000


class UnreadableError(RequestError):
    """A request has no JSON that can be read, wherever Seldon's clients put it."""


class SeldonPlane(DataPlane):
    """Reads JSON from where Seldon's clients put it, and answers failures with Seldon's envelope."""

    def __init__(
        self, plan: Plan, context: GraphContext, offloader: Offloader, options: DataPlaneOptions | None = None
    ) -> None:
        super().__init__(plan, context, offloader, options)
        target = plan.direct.target if plan.direct is not None else None
        self._answer_page: Callable[[Event], bool] | None = getattr(target, "answer_page", None)
        self._answer_failure: Callable[[Exception, Event], Response | None] | None = getattr(
            target, "answer_failure", None
        )
        self._operation_of: Callable[[Event], object] | None = getattr(target, "operation_of", None)
        self._passthrough: bool = getattr(target, "passthrough", False)

    def handle_now(self, event: Event) -> Reply | None:
        """Answer an event if that needs no waiting: what does not concern the component's methods never waits."""
        if self._answer_page is not None:
            try:
                if self._answer_page(event):
                    return self.reply(event)
            except Exception as exc:  # noqa: BLE001 - every failure has an answer
                return self.failure(exc, event)
        return super().handle_now(event)

    def read(self, event: Event) -> None:
        """Read the JSON of a request: of its body, its form, or its query.

        Raises:
            UnreadableError: there is none that can be read.
            NotFoundError: and there is no such path either.
            MethodNotAllowedError: and the path is not for this HTTP method.
        """
        body = event.body
        if body.__class__ is not bytes and body.__class__ is not str:
            return
        if event.trigger.kind == "grpc":
            return
        content_type = event.content_type or ""
        if content_type == JSON and body and not event._query:
            self._take(event, body)
            return
        try:
            text = self._found(event, body, content_type)
        except SeldonMicroserviceException as exc:
            self._check_path(event)
            raise UnreadableError(str(exc)) from exc
        if text.__class__ is bytes or text.__class__ is str:
            self._take(event, text)
        else:
            event.body = text

    def _found(self, event: Event, body: bytes | str, content_type: str) -> Any:
        """The JSON text of a request, the value of a form of several parts, or ``None``."""
        media = parse_media_type(content_type)
        if media.essence == "multipart/form-data":
            return multipart_value(_bytes(body), content_type, self.options.json_limits)
        text: Any = None
        if media.essence == "application/x-www-form-urlencoded":
            text = json_field(_bytes(body).decode("utf-8", "replace"), "form")
        if text is None and event._query:
            text = json_field(event._query, "query")
        if text is None and body and media.is_json:
            text = body if media.charset in (None, "utf-8", "utf8") else media.decode(_bytes(body))
        return text

    def _take(self, event: Event, text: bytes | str) -> None:
        """Put the value of a JSON text into the event, or the text where the component asks for that."""
        if self._passthrough and event.path == "/predict":
            event.body = text
            return
        try:
            event.body = read_json(text, self.options.json_limits)
        except jsoncodec.JSONDecodeError as exc:
            self._check_path(event)
            raise UnreadableError(f"{NO_JSON}: {exc}") from None

    def _check_path(self, event: Event) -> None:
        """Raise what is wrong with the path of a request, which its caller is to be told first."""
        if self._operation_of is not None:
            self._operation_of(event)

    def failure(self, exc: BaseException, event: Event, *, log: bool = True) -> Reply:
        """The reply to a request that failed: a `Status` in JSON, and the HTTP status that fits.

        Args:
            exc: what it failed with.
            event: the request.
            log: log the traceback of a server-side fault; for callers that do not raise it.
        """
        if isinstance(exc, UnreadableError):
            reply = self._own_answer(exc, event)
            if reply is not None:
                return reply
        status, info, reason = told(exc)
        fault = cause_of(exc)
        if log and status >= 500 and not isinstance(fault, UnavailableError):
            self.context.logger.error("request %s failed", event.id, exc_info=from_users_line(fault))
        body = envelope(info if len(info) <= _MOST_INFO else info[: _MOST_INFO - 3] + "...", reason)
        headers: dict[str, str] = {}
        if isinstance(fault, UnavailableError):
            headers["retry-after"] = str(fault.retry_after)
        if isinstance(fault, MethodNotAllowedError) and fault.allow:
            headers["allow"] = ", ".join(fault.allow)
        return Reply(status, jsoncodec.dumps(body), JSON, headers, body, exc)

    def _own_answer(self, exc: UnreadableError, event: Event) -> Reply | None:
        """What the component's own error handlers make of a request that never reached it."""
        if self._answer_failure is None:
            return None
        try:
            response = self._answer_failure(SeldonMicroserviceException(exc.message), event)
            return None if response is None else self._response(response)
        except Exception:
            self.context.logger.exception("the error handler for request %s failed", event.id)
            return None


def cause_of(exc: BaseException) -> BaseException:
    """What user code raised; else the failure itself."""
    return exc.__cause__ if isinstance(exc, StepError) and exc.__cause__ is not None else exc


def told(exc: BaseException) -> tuple[int, str, str]:
    """The HTTP status, the message and the reason that a failure is answered with."""
    fault = cause_of(exc)
    chosen = chosen_failure(fault, 200)  # a component may choose a success, and some do
    if chosen is not None:
        return chosen
    if isinstance(fault, NodeError):
        return fault.status, fault.message, fault.reason
    if isinstance(fault, ServegraphError):
        return fault.status, fault.message, reason_of(fault)
    try:
        info = (str(fault) or type(fault).__name__) if isinstance(fault, Exception) else repr(fault)
    except Exception:  # noqa: BLE001 - an exception that cannot even be shown must not take the answer away
        info = type(fault).__name__
    return 500, info, INTERNAL


def _bytes(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text
