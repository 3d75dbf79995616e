"""The exceptions of Seldon components, under the names that their code raises, and their envelope."""

from __future__ import annotations

from typing import Any, ClassVar, Final

BAD_DATA: Final = "MICROSERVICE_BAD_DATA"
INTERNAL: Final = "MICROSERVICE_INTERNAL_ERROR"
_WITHOUT_BODY: Final = (204, 205, 304)


class SeldonMicroserviceException(Exception):  # noqa: N818 - the name that components import
    """A failure with an HTTP status and a reason of its own; components raise it to choose both.

    Args:
        message: what went wrong, for the caller.
        status_code: HTTP status; 400 when not given.
        payload: kept for code that gives one; it is not sent.
        reason: the ``reason`` of the answer.
    """

    status_code: int = 400
    default_reason: ClassVar[str] = BAD_DATA

    def __init__(
        self, message: Any, status_code: int | None = None, payload: Any = None, reason: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        if status_code is not None:
            self.status_code = status_code
        self.payload = payload
        self.reason = reason if reason is not None else self.default_reason

    def to_dict(self) -> dict[str, Any]:
        """The body that it is answered with."""
        return envelope(str(self.message), self.reason)

    def __str__(self) -> str:
        return str(self.message)


class SeldonNotImplementedError(SeldonMicroserviceException):
    """Raised by a component's method that does nothing: it counts as missing."""

    def __init__(self, message: Any = "not implemented", **kwargs: Any) -> None:
        super().__init__(message, **kwargs)


def envelope(info: str, reason: str) -> dict[str, Any]:
    """The body of every failed request: a `Status` of Seldon's protocol."""
    return {"status": {"code": -1, "info": info, "reason": reason, "status": 1}}


def chosen_failure(exc: BaseException, lowest: int = 400) -> tuple[int, str, str] | None:
    """Status, message and reason of a `SeldonMicroserviceException`, ours or the real package's; else ``None``.

    Args:
        exc: any exception.
        lowest: the status below which one counts as 500.
    """
    if not any(cls.__name__ == "SeldonMicroserviceException" for cls in type(exc).__mro__):
        return None
    status = getattr(exc, "status_code", 400)
    sendable = isinstance(status, int) and lowest <= status <= 599 and status not in _WITHOUT_BODY
    status = int(status) if sendable else 500
    return status, str(getattr(exc, "message", exc)), str(getattr(exc, "reason", BAD_DATA))
