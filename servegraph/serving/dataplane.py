"""The data plane: one object between every edge (HTTP, mock, Nuclio, batch) and the engine.

An edge gives it an `Event` whose body is still bytes, and gets a `Reply`: status, headers and the bytes to send.
The same rules hold wherever an event came from: when a body is read as JSON, what an error looks like, what the
explicit "no result" is.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final

from servegraph import jsoncodec
from servegraph.errors import (
    MethodNotAllowedError,
    RequestError,
    ServegraphError,
    StepError,
    UnavailableError,
    users_part,
)
from servegraph.graph.calls import Offloader
from servegraph.graph.context import GraphContext
from servegraph.graph.engine import Engine, NoResult, Outcome
from servegraph.graph.events import DROP, Event, Response
from servegraph.graph.media import MediaType, parse_media_type
from servegraph.graph.plan import Plan
from servegraph.serving.limits import JsonLimits, check_json, parse_json

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
NO_RESULT_HEADER: Final = "x-no-result"


@dataclass(slots=True)
class Reply:
    """What an edge sends back."""

    status: int
    body: bytes
    content_type: str | None = JSON
    headers: Mapping[str, str] | None = None
    value: Any = None
    """The Python value behind the bytes, for callers in the same process."""
    error: BaseException | None = None
    """What the request failed with."""


@dataclass(frozen=True, slots=True)
class DataPlaneOptions:
    """How requests are read and answers written."""

    default_content_type: str = ""
    """The media type of requests that name none."""
    json_limits: JsonLimits | None = None
    """Bounds on JSON bodies; ``None`` for callers in the same process."""
    refuse_nan: bool = False
    """NaN and infinity in an answer are an error instead of ``null``."""
    show_traceback: bool = False
    """Error answers carry the exception's text and traceback. For development: they may hold secrets."""
    mlrun_status_codes: bool = False
    """Faults of the server are answered with 400, as MLRun does."""


class DataPlane:
    """Takes events in and gives replies out, for one compiled graph."""

    def __init__(
        self, plan: Plan, context: GraphContext, offloader: Offloader, options: DataPlaneOptions | None = None
    ) -> None:
        self.plan = plan
        self.context = context
        self.options = options or DataPlaneOptions()
        self.engine = Engine(plan, context, offloader)

    # -- running ----------------------------------------------------------------------------------------------------

    async def handle(self, event: Event) -> Reply:
        """The reply to one event, run on this event loop; never raises for a request that fails."""
        reply = self.handle_now(event)
        return await self.handle_later(event) if reply is None else reply

    def handle_now(self, event: Event) -> Reply | None:
        """Read an event, and answer it if that needs no waiting; ``None`` leaves it for `handle_later`."""
        try:
            self.read(event)
            outcome = self.engine.run_now(event)
            return None if outcome is None else self.reply(outcome)
        except Exception as exc:  # noqa: BLE001 - every failure has an answer
            return self.failure(exc, event)

    async def handle_later(self, event: Event) -> Reply:
        """The reply to an event that has been read."""
        try:
            return self.reply(await self.engine.run_in_loop(event))
        except Exception as exc:  # noqa: BLE001 - every failure has an answer
            return self.failure(exc, event)

    def run_plain(self, event: Event) -> Outcome:
        """The outcome of an event, run in this thread; raises what fails."""
        self.read(event)
        return self.engine.run_plain(event)

    def run_in_loop(self, event: Event) -> Coroutine[Any, Any, Outcome]:
        """The outcome of an event, run on the running loop; raises what fails."""
        self.read(event)
        return self.engine.run_in_loop(event)

    # -- reading ----------------------------------------------------------------------------------------------------

    def read(self, event: Event) -> None:
        """Read a JSON body that is still bytes or text.

        Raises:
            RequestError: the body says that it is JSON, and is not.
        """
        body = event.body
        if body.__class__ is not bytes and body.__class__ is not str:
            return
        content_type = event.content_type or self.options.default_content_type
        if content_type == JSON:
            limits = self.options.json_limits
            if body and limits is not None and body.__class__ is bytes:
                try:
                    event.body = parse_json(body, limits)
                except jsoncodec.JSONDecodeError as exc:
                    raise RequestError(f"the body is not valid JSON: {exc}") from None
                return
            media = _JSON_MEDIA
        elif content_type:
            media = parse_media_type(content_type)
            if not media.is_json:
                return
        else:
            media = _NO_MEDIA
        if not body:
            event.body = None  # a request without a body, as it is where Python values go in
            return
        event.body = self._parsed(body, media)

    def _parsed(self, body: bytes | str, media: MediaType) -> Any:
        limits = self.options.json_limits
        if media.charset not in (None, "utf-8", "utf8") and isinstance(body, bytes):
            body = media.decode(body)
        try:
            if limits is None:
                return jsoncodec.loads(body)
            raw = body.encode() if isinstance(body, str) else body
            return parse_json(raw, limits) if media.is_json else check_json(raw, limits)
        except (jsoncodec.JSONDecodeError, UnicodeEncodeError) as exc:
            if media.is_json:
                raise RequestError(f"the body is not valid JSON: {exc}") from None
            return body  # nothing said that it was JSON

    # -- writing ----------------------------------------------------------------------------------------------------

    def reply(self, outcome: Outcome) -> Reply:
        """The reply that an outcome is sent as.

        Raises:
            StepError: the answer cannot be written.
        """
        if isinstance(outcome, NoResult):
            return no_result(outcome.reason)
        value = outcome.body
        if isinstance(value, Response):
            return self._response(value)
        if value is DROP:
            return no_result("the last step ended the event")
        if value.__class__ is dict or value.__class__ is list:
            return Reply(200, self.encode(value), JSON, None, value)
        if isinstance(value, bytes):
            return Reply(200, value, "application/octet-stream", None, value)
        if isinstance(value, str):
            return Reply(200, _encoded(value), "text/plain; charset=utf-8", None, value)
        return Reply(200, self.encode(value), JSON, None, value)

    def encode(self, value: Any) -> bytes:
        """The JSON of an answer.

        Raises:
            StepError: the answer has no JSON; the message names what it is.
        """
        try:
            return jsoncodec.dumps(value, refuse_nan=self.options.refuse_nan)
        except (TypeError, ValueError, RecursionError) as exc:
            # The codec's own message names the place, from "$"; what a value's methods raise may hold anything.
            text = str(exc) if str(exc).startswith("$") else f"{type(exc).__name__}; the server's log has the details"
            raise StepError(f"the answer cannot be written as JSON: {text}") from exc

    def _response(self, response: Response) -> Reply:
        headers = sendable(response)
        body = response.body
        content_type = None if response.content_type is None else _CONTROL.sub(" ", response.content_type)
        if content_type is not None and not content_type.isascii():
            raise StepError("the answer's content_type holds characters that cannot be sent")
        if body is None or response.status_code in _WITHOUT_BODY:
            raw = b""
        elif isinstance(body, bytes):
            raw = body
            content_type = content_type or "application/octet-stream"
        elif isinstance(body, str):
            raw = _encoded(body)
            content_type = content_type or "text/plain; charset=utf-8"
        else:
            raw = self.encode(body)
            content_type = content_type or JSON
        return Reply(response.status_code, raw, content_type, headers, body)

    # -- failing ----------------------------------------------------------------------------------------------------

    def failure(self, exc: BaseException, event: Event, *, log: bool = True) -> Reply:
        """The reply to a request that failed: problem JSON (RFC 9457) that names step, model and request id.

        Args:
            exc: what it failed with.
            event: the request.
            log: log the traceback of a server-side fault; for callers that do not raise it.
        """
        faulty = _user_fault(exc)
        error = exc if isinstance(exc, ServegraphError) else None
        status = error.status if error is not None else 500
        if log and status >= 500 and not isinstance(exc, UnavailableError):
            self.context.logger.error("request %s failed", event.id, exc_info=faulty)
        if self.options.mlrun_status_codes and status >= 500 and not isinstance(exc, UnavailableError):
            status = 400
        problem: dict[str, Any] = {
            "type": "about:blank",
            "title": error.title if error is not None else "Internal Server Error",
            "status": status,
            "detail": _clipped(self._detail(exc)),
            "request_id": event.id,
        }
        if error is not None:
            problem.update({k: v for k, v in (("step", error.step), ("model", error.model)) if v})
        if self.options.show_traceback:
            problem["traceback"] = "".join(traceback.format_exception(exc))
        headers: dict[str, str] = {}
        if isinstance(exc, UnavailableError):
            headers["retry-after"] = str(exc.retry_after)
        if isinstance(exc, MethodNotAllowedError) and exc.allow:
            headers["allow"] = ", ".join(exc.allow)
        return Reply(status, jsoncodec.dumps(problem), PROBLEM, headers, problem, exc)

    def _detail(self, exc: BaseException) -> str:
        """What the caller is told: our own words; of an exception in user code only its type."""
        if self.options.show_traceback:
            return str(exc)
        if isinstance(exc, StepError) and exc.__cause__ is not None and exc.step is not None:
            return f"step {exc.step!r} failed with {type(exc.__cause__).__name__}; the server's log has the details"
        if isinstance(exc, ServegraphError):
            return exc.message
        return f"{type(exc).__name__}; the server's log has the details"


def _user_fault(exc: BaseException) -> BaseException:
    """What user code raised, with a traceback that begins in user code; else the failure itself."""
    cause = exc.__cause__ if isinstance(exc, StepError) else None
    if cause is None:
        return exc
    trace = users_part(cause.__traceback__)
    return cause if trace is None else cause.with_traceback(trace)


_JSON_MEDIA: Final = parse_media_type(JSON)
_NO_MEDIA: Final = MediaType()


_WITHOUT_BODY: Final = frozenset((204, 205, 304))
_MOST_DETAIL: Final = 8000
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OWN_HEADERS: Final = frozenset(("connection", "content-length", "transfer-encoding"))


def sendable(response: Response) -> dict[str, str]:
    """The headers of an answer as they can be sent (RFC 9110, 5): control characters in values become spaces.

    Raises:
        StepError: the status or a header's name is none, or a value holds characters that no header can.
    """
    status = response.status_code
    if type(status) is not int or not 200 <= status <= 599:
        raise StepError(f"the answer's status_code must be a whole number from 200 to 599, not {status!r}")
    headers = {}
    for name, value in response.headers.items():
        name, text = str(name), _CONTROL.sub(" ", str(value))
        if not _NAME.fullmatch(name) or name.lower() in _OWN_HEADERS:
            raise StepError(f"the answer cannot have a header {name!r}: it is no token, or the server sets it itself")
        if max(text, default="") > "\xff":
            raise StepError(f"the answer's header {name!r} holds characters that cannot be sent: encode its value")
        headers[name] = text
    return headers


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise StepError(f"the answer is no text that can be sent: {exc.reason} at {exc.start}") from exc


def _clipped(text: str) -> str:
    return text if len(text) <= _MOST_DETAIL else text[: _MOST_DETAIL - 3] + "..."


def no_result(reason: str) -> Reply:
    """The explicit answer to a request that nothing answered: 204, and a header that says why."""
    printable = reason.encode("unicode_escape").decode("ascii")
    return Reply(204, b"", None, {NO_RESULT_HEADER: _clipped(printable)})
