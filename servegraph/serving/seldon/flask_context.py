"""Flask's request and application for components that use them, without a Flask server.

Components read headers with ``flask.request`` and answer errors with handlers of a Flask Blueprint. When a component
uses Flask, its methods run inside a request context made of the event, on whatever thread they run. A component
that does not costs nothing, and Flask need not be installed.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from types import CodeType, ModuleType
from typing import Any, Final, ParamSpec, TypeVar
from urllib.parse import quote, urlencode

from servegraph import jsoncodec
from servegraph.graph.events import Event
from servegraph.serving.seldon.errors import BAD_DATA, INTERNAL, envelope
from servegraph.serving.seldon.message import Feedback, Message
from servegraph.serving.seldon.rest import feedback_to_rest, message_to_rest

P = ParamSpec("P")
R = TypeVar("R")

Answer = tuple[int, list[tuple[str, str]], bytes]
"""Status, header fields and body of an HTTP answer."""

_JSON: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"
_NAME: Final = "seldon_core.wrapper"
"""What ``current_app.name`` is in Seldon's server."""
HANDLERS: Final = "model_error_handler"
"""The attribute of a component that holds its Blueprint."""


class FlaskContext:
    """Runs the methods of one component as if Flask served it.

    Args:
        component: the user's object.
        config: fields of the Flask configuration, such as ``DEBUG``; ``JSON_SORT_KEYS`` and
            ``JSON_AS_ASCII`` work as they did before Flask 2.3.

    Raises:
        TypeError: ``model_error_handler`` is no Blueprint.
    """

    def __init__(self, component: object, config: Mapping[str, Any] | None = None) -> None:
        blueprint = getattr(component, HANDLERS, None)
        self.app = _application(type(component).__module__, blueprint, config or {})
        self.has_handlers = blueprint is not None
        """Whether the component has error handlers of its own."""

    @classmethod
    def for_component(cls, component: object, config: Mapping[str, Any] | None = None) -> FlaskContext | None:
        """The context of a component; None when nothing that it loaded, and no method of it, imports Flask."""
        if "flask" not in sys.modules and not _names_flask(type(component)):
            return None
        try:
            import flask  # noqa: F401
        except ImportError:  # the component says so itself, in the method that needs it
            return None
        return cls(component, config)

    def run(self, event: Event, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What a function gives that sees the event as ``flask.request``."""
        with self._request(event):
            return function(*args, **kwargs)

    async def run_async(
        self, event: Event, function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """What a coroutine function gives that sees the event as ``flask.request`` all along."""
        with self._request(event):
            return await function(*args, **kwargs)

    def handle_error(self, error: Exception, event: Event) -> Answer | None:
        """The answer that the component's own handlers, or Werkzeug's exceptions, give to an error.

        The handler of the most specific class wins, a handler of a status code before one of a class. An error
        without one goes to the handler of 500, as in Flask.

        Returns:
            None when there is no handler and the error says nothing of HTTP.

        Raises:
            Exception: what the handler itself raised.
        """
        from werkzeug.exceptions import HTTPException, InternalServerError

        if not self.has_handlers and not isinstance(error, HTTPException):
            return None
        with self._request(event):
            answer = self._handled(error)
            if answer is error and not isinstance(error, HTTPException):
                unhandled = InternalServerError(original_exception=error)
                answer = self._handled(unhandled)
                if answer is unhandled:
                    return None
            if isinstance(answer, HTTPException) and answer.response is None:
                return _http_error(answer)
            response = self.app.make_response(answer)
            return response.status_code, list(response.headers.items()), response.get_data()

    def _handled(self, error: Exception) -> Any:
        """What a handler gives; the error itself where there is none."""
        try:
            try:
                raise error  # Flask raises again what is being handled
            except Exception:  # noqa: BLE001 - raised again by Flask where nothing handles it
                return self.app.handle_user_exception(error)
        except Exception as exc:
            if exc is not error:
                raise
            return error

    @contextmanager
    def _request(self, event: Event) -> Iterator[None]:
        with self.app.request_context(_environ(event)):
            yield


def add_flask_hint(error: BaseException) -> None:
    """Tell with an import error of Flask how to install it."""
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "flask":
        error.add_note("Components that use Flask need it: pip install 'servegraph[flask]'")


def _application(name: str, blueprint: Any, config: Mapping[str, Any]) -> Any:
    import flask

    if blueprint is not None and not isinstance(blueprint, flask.Blueprint):
        raise TypeError(f"{HANDLERS} must be a flask.Blueprint, got {type(blueprint).__name__}")

    class ComponentRequest(flask.Request):
        @property
        def blueprints(self) -> list[str]:
            # So that handlers made with ``errorhandler``, which hold for one blueprint, hold as well.
            return [blueprint.name] if blueprint is not None else []

    class ComponentApplication(flask.Flask):
        request_class = ComponentRequest
        name = _NAME

        def create_url_adapter(self, request: Any) -> None:
            """Nothing: paths are the server's own affair."""

    app = ComponentApplication(name if name in sys.modules else __name__, static_folder=None)
    app.config.update(config)
    app.json.sort_keys = bool(config.get("JSON_SORT_KEYS", True))  # type: ignore[attr-defined]
    app.json.ensure_ascii = bool(config.get("JSON_AS_ASCII", True))  # type: ignore[attr-defined]
    if blueprint is not None:
        app.register_blueprint(blueprint)
    return app


def _http_error(error: Any) -> Answer:
    """The answer to ``flask.abort``: its status, and the body that every failed request has."""
    status = error.code or 500
    reason = BAD_DATA if 400 <= status < 500 else INTERNAL
    kept = [(name, value) for name, value in error.get_headers() if name.lower() != "content-type"]
    body = jsoncodec.dumps(envelope(str(error), reason))
    return status, [*kept, ("Content-Type", "application/json")], body


class _LateBody(io.RawIOBase):
    """The body of a request; one that was decoded already is encoded only if somebody reads it."""

    def __init__(self, body: Any, content_type: str) -> None:
        self._body = body
        self._content_type = content_type
        self._data: io.BytesIO | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._data is None:
            self._data = io.BytesIO(_bytes(self._body, self._content_type))
        return self._data.readinto(buffer)


def _bytes(body: Any, content_type: str) -> bytes:
    body = _as_json(body)
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    text = jsoncodec.dumps(body)
    # What was read from a form is there in a form.
    return urlencode({"json": text}).encode() if content_type.startswith(_FORM) else text


def _as_json(body: Any) -> Any:
    """A body as it would be on REST: nodes of a tree hand each other messages."""
    if isinstance(body, Message):
        return message_to_rest(body)
    if isinstance(body, Feedback):
        return feedback_to_rest(body)
    return [_as_json(item) for item in body] if _is_message(body) else body


def _is_message(body: Any) -> bool:
    """Whether a body is a message, a feedback, or a list of messages."""
    first = body[0] if isinstance(body, list) and body else body
    return isinstance(first, (Message, Feedback))


def _puid(body: Any) -> str:
    """The id of the request that a node's input belongs to."""
    first = body[0] if isinstance(body, list) else body
    if isinstance(first, Feedback):
        return first.response.meta.puid or first.request.meta.puid
    return str(first.meta.puid)


def _environ(event: Event) -> dict[str, Any]:
    path, _, query = event.path.partition("?")
    fields = event.fields
    environ: dict[str, Any] = {
        "REQUEST_METHOD": event.method or "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": path.encode().decode("latin-1"),
        "QUERY_STRING": urlencode(fields, doseq=True) if fields else query,
        "REQUEST_URI": quote(path),
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BufferedReader(_LateBody(event.body, event.content_type or "")),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "servegraph.event": event,
    }
    if event._peer is not None:
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = event._peer[0], str(event._peer[1])
    for name, value in event.headers.items():
        environ["HTTP_" + name.upper().replace("-", "_")] = value
    content_type = event.content_type or environ.get("HTTP_CONTENT_TYPE")
    if _is_message(event.body):
        content_type = _JSON  # however the request itself came, nodes ask each other in JSON
        environ.update(REQUEST_METHOD="POST", QUERY_STRING="")
        environ["wsgi.input"] = io.BufferedReader(_LateBody(event.body, _JSON))
        puid = _puid(event.body)
        if puid and puid.isascii() and puid.isprintable():
            environ["HTTP_SELDON_PUID"] = puid
    for name in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"):
        environ.pop(name, None)
    if content_type:
        environ["CONTENT_TYPE"] = content_type
    if isinstance(event.body, (bytes, bytearray)):
        environ["CONTENT_LENGTH"] = str(len(event.body))
    return environ


def _names_flask(kind: type) -> bool:
    """Whether code of a class or of its module imports Flask when it runs."""
    owners: list[type | ModuleType] = list(kind.__mro__)
    owners.extend(sys.modules[name] for name in {owner.__module__ for owner in kind.__mro__} if name in sys.modules)
    return any("flask" in _names(code) for owner in owners for code in _codes(owner))


def _codes(owner: type | ModuleType) -> Iterator[CodeType]:
    for value in list(vars(owner).values()):
        code = getattr(getattr(value, "__func__", value), "__code__", None)
        if isinstance(code, CodeType):
            yield code


def _names(code: CodeType) -> set[str]:
    names = {name.partition(".")[0] for name in code.co_names}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
    return names
