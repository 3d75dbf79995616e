"""The one tree of errors, and the status each is answered with.

::

    ServegraphError                     500
    ├── GraphError                      500  a graph is put together wrongly; found when it is built
    │   ├── SpecError                   500  a spec (dict, JSON, YAML) cannot be read
    │   └── ExpressionError             500  an expression failed (graph/expressions.py)
    ├── SettingsError                   500  a setting is unknown or has a wrong value
    ├── MissingExtraError               500  an optional package is not installed (also an ImportError)
    ├── RequestError                    400  the caller's fault
    │   ├── NotFoundError               404  unknown path, model, version or operation
    │   ├── MethodNotAllowedError       405
    │   ├── RequestTimeoutError         408  the caller did not send its request in time
    │   ├── PayloadTooLargeError        413
    │   ├── UnsupportedMediaTypeError   415
    │   └── UnprocessableError          422  well-formed, but not what the model takes
    ├── StepError                       500  user code in a step raised; the cause is chained
    ├── RemoteError                     502  a remote step got no usable answer
    ├── UnavailableError                503  not now; try again after ``retry_after`` seconds
    │   ├── ModelNotReadyError          503
    │   └── OverloadedError             503
    ├── DeadlineError                   504  the request ran out of time; names the step that spent it
    ├── ModelLoadError                  500
    ├── StreamError                     500  a stream could not be opened, written or read
    │   └── PushError                   500  some records were not written (streams/base.py)
    └── RequestFailedError                   what a test client or ``invoke`` raises for a failed request

Anything else that is raised is a fault of the server or of user code: 500, always.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

_LONGEST_NAME = 80
_PACKAGE = str(Path(__file__).parent) + "/"
_STDLIB = str(Path(difflib.__file__).parent)
# What stands between a caller and the code that it runs: of no interest to who wrote that code.
_IN_BETWEEN = (
    _PACKAGE,
    "<frozen importlib",
    f"{_STDLIB}/asyncio/",
    f"{_STDLIB}/concurrent/",
    f"{_STDLIB}/importlib/",
    f"{_STDLIB}/threading.py",
    "uvloop/",
)


class ServegraphError(Exception):
    """Base of everything that servegraph raises on purpose."""

    status: int = 500
    title: str = "Internal Server Error"
    retryable: bool = False

    def __init__(self, message: str = "", *, step: str | None = None, model: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.step = step
        self.model = model

    def __str__(self) -> str:
        return self.message


class GraphError(ServegraphError):
    """A graph is put together wrongly: an unknown step, a loop, two responders, a class that is not there."""


class SpecError(GraphError):
    """A spec cannot be read; the message says where in it and what is accepted there."""


class SettingsError(ServegraphError, ValueError):
    """A setting is unknown or has a value it cannot take."""


class MissingExtraError(ServegraphError, ImportError):
    """An optional package is missing; the message holds the line that installs it."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs a package that is not installed: pip install 'servegraph[{extra}]'")
        self.feature = feature
        self.extra = extra

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.feature, self.extra)


class RequestError(ServegraphError):
    """The request is wrong; sending it again unchanged gives the same answer."""

    status = 400
    title = "Bad Request"


class NotFoundError(RequestError):
    """No such path, model, version or operation; the message lists those that exist."""

    status = 404
    title = "Not Found"


class MethodNotAllowedError(RequestError):
    """The path exists, but not for this HTTP method."""

    status = 405
    title = "Method Not Allowed"

    def __init__(self, message: str = "", *, allow: Iterable[str] = (), **kw: str | None) -> None:
        super().__init__(message, **kw)
        self.allow = tuple(allow)


class RequestTimeoutError(RequestError):
    """The caller did not send its whole request in time."""

    status = 408
    title = "Request Timeout"


class PayloadTooLargeError(RequestError):
    """The body is larger than the server takes."""

    status = 413
    title = "Content Too Large"


class UnsupportedMediaTypeError(RequestError):
    """The body's media type or encoding is not one the server reads."""

    status = 415
    title = "Unsupported Media Type"


class UnprocessableError(RequestError):
    """The body is well-formed, but holds something that the model or step cannot take."""

    status = 422
    title = "Unprocessable Content"


class StepError(ServegraphError):
    """User code in a step raised; ``__cause__`` is the user's own exception."""


class RemoteError(ServegraphError):
    """A remote service gave no usable answer."""

    status = 502
    title = "Bad Gateway"
    retryable = True


class UnavailableError(ServegraphError):
    """The request can't be served now and may be sent again after ``retry_after`` seconds."""

    status = 503
    title = "Service Unavailable"
    retryable = True

    def __init__(self, message: str = "", *, retry_after: int = 1, **kw: str | None) -> None:
        super().__init__(message, **kw)
        self.retry_after = retry_after


class ModelNotReadyError(UnavailableError):
    """The model is loading or could not be loaded."""


class OverloadedError(UnavailableError):
    """The server has as much work as it takes on."""


class DeadlineError(ServegraphError):
    """The request ran out of time; ``step`` names the step that was running."""

    status = 504
    title = "Gateway Timeout"


class ModelLoadError(ServegraphError):
    """A model's ``load`` raised or took too long."""


class StreamError(ServegraphError):
    """A stream could not be opened, written or read."""


class RequestFailedError(ServegraphError, RuntimeError):
    """A request was answered with an error status; ``status`` and ``body`` are those of the answer."""

    def __init__(self, status: int, body: object, message: str | None = None) -> None:
        super().__init__(message or f"failed ({status}): {body}")
        self.status = status
        self.body = body

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.status, self.body, self.message)


def users_part(trace: TracebackType | None) -> TracebackType | None:
    """A traceback from the first line that is the user's on; ``None`` where none is."""
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(_IN_BETWEEN):
            return trace
        trace = trace.tb_next
    return None


def from_users_line(exc: BaseException) -> BaseException:
    """An exception for the log: its traceback begins at the user's first line, where it went through one."""
    trace = users_part(exc.__traceback__)
    return exc if trace is None else exc.with_traceback(trace)


def text_of(exc: BaseException) -> str:
    """What an exception says; a note in its place when the exception's own class cannot tell."""
    try:
        return str(exc)
    except Exception:  # noqa: BLE001 - user code; a failure that cannot be shown must still be told
        return "(its text cannot be read)"


def summary(exc: BaseException) -> str:
    """An exception in one line: ``ValueError: no such row``."""
    return f"{type(exc).__name__}: {text_of(exc)}"


def clipped(name: str) -> str:
    """A name from a request, short enough for a message."""
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 3] + "..."


def closest(name: str, valid: Iterable[str]) -> str:
    """The tail of an error message about an unknown name: a near miss first, then what is valid."""
    names = sorted({str(v) for v in valid})
    if not names:
        return "there are none"
    # What a request calls a name may be megabytes long.
    near = difflib.get_close_matches(name, names, n=1) if len(name) <= _LONGEST_NAME else []
    hint = f"did you mean {near[0]!r}? " if near else ""
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return f"{hint}valid: {shown}"
