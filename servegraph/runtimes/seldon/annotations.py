"""The annotations of the pod that a component runs in, as Kubernetes mounts them (downward API)."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

logger = logging.getLogger("servegraph")

ANNOTATIONS: Final = Path("/etc/podinfo/annotations")
_MESSAGE_SIZE: Final = "seldon.io/grpc-max-message-size"
_REST_TIMEOUT: Final = "seldon.io/rest-timeout"
_WHOLE: Final = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class PodAnnotations:
    """What annotations say about the server."""

    max_message_bytes: int | None = None
    """``seldon.io/grpc-max-message-size``."""
    rest_timeout_ms: int | None = None
    """``seldon.io/rest-timeout``."""

    def settings(self) -> dict[str, Any]:
        """The settings that follow from them."""
        found: dict[str, Any] = {}
        if self.max_message_bytes is not None:
            found["grpc.max_message_bytes"] = self.max_message_bytes
        if self.rest_timeout_ms is not None:
            found["timeouts.request_s"] = max(self.rest_timeout_ms / 1000, 0.001)
        return found


def pod_annotations(file: Path = ANNOTATIONS) -> PodAnnotations:
    """What the annotations say; what cannot be read is logged, as it says nothing about whether the model works."""
    found = read_annotations(file)
    return PodAnnotations(_number(found, _MESSAGE_SIZE), _number(found, _REST_TIMEOUT))


def read_annotations(file: Path = ANNOTATIONS) -> dict[str, str]:
    """The annotations by name; none where there is no such file."""
    try:
        text = file.read_text("utf-8", errors="replace")
    except OSError:
        return {}
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        name, equals, value = line.partition("=")
        value = value.strip()
        if not equals or len(value) < 2:
            if line.strip():
                logger.warning("%s, line %d is no annotation", file, number)
            continue
        found[name.strip()] = value[1:-1]
    return found


def _number(found: dict[str, str], name: str) -> int | None:
    text = found.get(name)
    if text is None:
        return None
    if not _WHOLE.fullmatch(text) or not int(text):
        logger.warning("the annotation %s must be a whole number above 0, not %r: it is left out", name, text)
        return None
    return int(text)
