"""What the node of a tree fails with: an error that names the node, and the body that callers get of it."""

from __future__ import annotations

from typing import Any, Final

from servegraph.errors import DeadlineError, RemoteError, ServegraphError, UnavailableError
from servegraph.serving.seldon.errors import BAD_DATA, INTERNAL, chosen_failure, envelope

INVALID_ROUTING: Final = "ENGINE_INVALID_ROUTING"
INVALID_COMBINATION: Final = "ENGINE_INVALID_COMBINER_RESPONSE"
UNREACHABLE: Final = "ENGINE_MICROSERVICE_ERROR"
INTERRUPTED: Final = "ENGINE_INTERRUPTED"
JSON: Final = "application/json"
_MOST_INFO: Final = 1000


class NodeError(ServegraphError):
    """A node of a Seldon tree failed.

    Args:
        node: the node's name.
        message: what went wrong, without the node.
        status: the HTTP status that it is answered with.
        reason: the ``reason`` of Seldon's envelope.
        body: the body that the node itself answered with; it is passed through.
        content_type: what that body is, where it is bytes.
    """

    def __init__(
        self,
        node: str,
        message: str,
        *,
        status: int = 500,
        reason: str = INTERNAL,
        body: Any = None,
        content_type: str = JSON,
    ) -> None:
        super().__init__(f"node {node!r}: {message}", step=node)
        self.node = node
        self.status = status
        self.title = "Bad Request" if status < 500 else "Internal Server Error"
        self.reason = reason
        self.body = body
        self.content_type = content_type


class PassedThroughError(Exception):
    """A component answered with an error of its own: its status and body go to the caller as they are.

    Args:
        status: the HTTP status.
        body: the answer, as a JSON value, or as bytes.
        content_type: what the bytes are.
    """

    def __init__(self, status: int, body: Any, content_type: str = JSON) -> None:
        told = body.get("status") if isinstance(body, dict) else None
        told = told if isinstance(told, dict) else {}
        info = told.get("info") or (body[:_MOST_INFO].decode("utf-8", "replace") if isinstance(body, bytes) else "")
        super().__init__(f"it answered with status {status}" + (f": {str(info)[:_MOST_INFO]}" if info else ""))
        self.status = status
        self.reason = str(told.get("reason") or (BAD_DATA if status < 500 else INTERNAL))
        self.body = body
        self.content_type = content_type


def node_error(node: str, exc: Exception) -> NodeError:
    """The failure of a node, from what it raised; one that names its node already stays as it is."""
    if isinstance(exc, NodeError):
        return exc
    if isinstance(exc, PassedThroughError):
        status = exc.status if 300 <= exc.status <= 599 else 500
        return NodeError(node, str(exc), status=status, reason=exc.reason, body=exc.body, content_type=exc.content_type)
    chosen = chosen_failure(exc)
    if chosen is not None:
        status, message, reason = chosen
        return NodeError(node, message, status=status, reason=reason)
    if isinstance(exc, ServegraphError):
        return NodeError(node, exc.message, status=exc.status, reason=reason_of(exc))
    text = str(exc)
    return NodeError(node, text if text else type(exc).__name__)


def reason_of(exc: ServegraphError) -> str:
    """The reason of Seldon's envelope for an error of servegraph."""
    if isinstance(exc, DeadlineError):
        return INTERRUPTED
    if isinstance(exc, RemoteError):
        return UNREACHABLE
    return BAD_DATA if exc.status < 500 else INTERNAL


def answer_of(exc: Exception) -> tuple[int, Any]:
    """The status and the body that a failed request is answered with: Seldon's envelope, or what a node sent."""
    if isinstance(exc, NodeError):
        return exc.status, exc.body if exc.body is not None else envelope(exc.message, exc.reason)
    chosen = chosen_failure(exc)
    if chosen is not None:
        status, message, reason = chosen
        return status, envelope(message, reason)
    if isinstance(exc, ServegraphError):
        info = exc.message if exc.status < 500 or isinstance(exc, (DeadlineError, UnavailableError)) else _hidden(exc)
        return exc.status, envelope(info, reason_of(exc))
    return 500, envelope(_hidden(exc), INTERNAL)


def _hidden(exc: Exception) -> str:
    return f"{type(exc).__name__}; the server's log has the details"
