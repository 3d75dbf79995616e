"""What a failed gRPC call is answered with: the one place that maps errors to gRPC's codes."""

from __future__ import annotations

import re
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Final

from servegraph.errors import OverloadedError, ServegraphError, StepError, UnavailableError

_CODES: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    410: "NOT_FOUND",
    412: "FAILED_PRECONDITION",
    413: "RESOURCE_EXHAUSTED",
    415: "INVALID_ARGUMENT",
    416: "OUT_OF_RANGE",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
# Percent-encoded on the wire, so up to three times as many bytes there, of the 8 KiB that peers take.
_MOST_BYTES: Final = 1000
_WORD_START: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Failure:
    """The answer to a failed call."""

    code: str
    """Name of a gRPC status code."""
    details: str
    """What the caller is told."""
    reason: str
    """A word for programs: that of the exception, else the kind of error, such as ``NOT_FOUND`` or ``OVERLOADED``."""
    is_fault: bool
    """Whether it is the server's or the model's fault, which belongs into the log."""
    retry_after: int | None = None
    """Seconds after which the call may be tried again."""

    def trailing(self) -> tuple[tuple[str, str], ...]:
        """What the answer tells programs, as trailing metadata."""
        after = () if self.retry_after is None else (("retry-after", str(self.retry_after)),)
        return (("reason", self.reason), *after)


class ToldFailure(Exception):  # noqa: N818 - it is an answer, not an error of its own
    """A failure in a protocol's own words; its cause is what is logged.

    Args:
        status: the HTTP status that stands for its code.
        message: what the caller is told.
        reason: a word for programs.
    """

    def __init__(self, status: int, message: str, reason: str) -> None:
        super().__init__(message)
        self.status_code = status
        self.message = message
        self.reason = reason


def failure_of(exc: BaseException) -> Failure:
    """The answer to a call that ended with an exception.

    An exception of another library chooses its answer with a whole number as its ``status_code`` or ``status``;
    without one it is a fault, of which the caller is told the type alone.
    """
    if isinstance(exc, CancelledError):
        return Failure("CANCELLED", "the call was cancelled", "CANCELLED", is_fault=False)
    status = _status(exc)
    if status is None:
        return Failure("INTERNAL", _unnamed(exc), "INTERNAL", is_fault=True)
    code = "RESOURCE_EXHAUSTED" if isinstance(exc, OverloadedError) else code_of(status)
    return Failure(
        code,
        _clipped(_details(exc)),
        _reason(exc),
        is_fault=status >= 500 and status not in (501, 503),
        retry_after=exc.retry_after if isinstance(exc, UnavailableError) else None,
    )


def code_of(status: int) -> str:
    """Name of the gRPC code that stands for an HTTP error status."""
    if (code := _CODES.get(status)) is not None:
        return code
    return "INVALID_ARGUMENT" if 400 <= status < 500 else "INTERNAL"


def _status(exc: BaseException) -> int | None:
    for name in ("status_code", "status"):
        status = getattr(exc, name, None)
        if isinstance(status, int) and not isinstance(status, bool) and 400 <= status < 600:
            return status
    return None


def _details(exc: BaseException) -> str:
    if isinstance(exc, StepError) and exc.__cause__ is not None and exc.step is not None:
        return f"step {exc.step!r} failed with {_unnamed(exc.__cause__)}"
    message = getattr(exc, "message", None)
    return message if isinstance(message, str) and message else str(exc) or type(exc).__name__


def _unnamed(exc: BaseException) -> str:
    return f"{type(exc).__name__}; the server's log has the details"


def _reason(exc: BaseException) -> str:
    reason = getattr(exc, "reason", None)
    if isinstance(reason, str) and 0 < len(reason) <= 200 and reason.isascii() and reason.isprintable():
        return reason
    name = type(exc).__name__ if isinstance(exc, ServegraphError) else code_of(_status(exc) or 500)
    return _WORD_START.sub("_", name.removesuffix("Error")).upper() or "INTERNAL"


def _clipped(text: str) -> str:
    data = text.encode("utf-8", "replace")
    return text if len(data) <= _MOST_BYTES else data[: _MOST_BYTES - 3].decode("utf-8", "ignore") + "..."
