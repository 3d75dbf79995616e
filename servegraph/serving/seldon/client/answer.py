"""The outcome of one call, whichever way it went over the wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    ok: bool
    msg: str = ""
    """Why it is not, for people: ``404:Not Found``, ``UNAVAILABLE:…``."""
    code: str = ""
    """Status of HTTP or of gRPC, such as ``404`` or ``UNAVAILABLE``; empty where no answer came."""
    body: Any = None
    """REST: the JSON object; gRPC: the bytes of the message; ``None`` where there is neither."""
    retryable: bool = False
    """Whether the same call may succeed later."""
    retry_after_s: float | None = None
    """How long the server asks to wait before that."""
