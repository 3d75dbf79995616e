"""Payloads of nodes as CloudEvents, sent over HTTP behind the requests' backs.

What is logged is copied into a bounded queue; a thread encodes and posts it. A full queue, or a receiver that does
not answer, drops payloads, which is counted and logged: no request waits or fails for it.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any, Final

from servegraph import jsoncodec
from servegraph.graph.copying import isolate
from servegraph.importing import import_extra
from servegraph.serving.seldon.message import Feedback, Message
from servegraph.serving.seldon.rest import feedback_to_rest, message_to_rest

logger = logging.getLogger("servegraph")

EVENT_TYPES: Final = {
    "request": "io.seldon.serving.inference.request",
    "response": "io.seldon.serving.inference.response",
    "feedback": "io.seldon.serving.feedback",
}
_QUEUED: Final = 10_000
_POST_S: Final = 5.0
_COMPLAIN_EVERY_S: Final = 60.0
_END: Final = object()


@dataclass(frozen=True, slots=True)
class LogOrigin:
    """Where payloads come from, as their events say it."""

    deployment: str
    namespace: str
    predictor: str
    default_url: str = ""
    """Where the payloads of nodes go that name no address."""

    def headers(self) -> dict[str, str]:
        """The attributes that all events of the origin have."""
        return {
            "ce-specversion": "1.0",
            "ce-source": f"http://{self.deployment}-{self.predictor}.{self.namespace}/",
            "ce-inferenceservicename": self.deployment,
            "ce-namespace": self.namespace,
            "ce-endpoint": self.predictor,
            "ce-protocol": "seldon",
            "content-type": "application/json",
        }


class PayloadLog:
    """Sends payloads as CloudEvents in binary mode.

    Args:
        origin: what the events say of where they come from.
        queued: how many payloads may wait.
    """

    def __init__(self, origin: LogOrigin, queued: int = _QUEUED) -> None:
        self._origin = origin
        self._queue: queue.Queue[Any] = queue.Queue(queued)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._complained = -_COMPLAIN_EVERY_S
        self.dropped = 0
        """How many payloads were not sent."""

    def put(self, kind: str, node: str, url: str, puid: str, message: Message | Feedback) -> None:
        """Have a payload sent; a copy, so that later changes do not show."""
        target = url or self._origin.default_url
        if not target:
            self._drop("no address: give logger.url or REQUEST_LOGGER_DEFAULT_ENDPOINT")
            return
        try:
            self._queue.put_nowait((kind, node, target, puid, _copied(message)))
        except queue.Full:
            self._drop("the queue is full")
        except Exception as exc:  # noqa: BLE001 - logging fails no request
            self._drop(f"the payload cannot be copied: {exc}")
        if self._thread is None:
            self._start()

    def close(self, timeout_s: float = 5.0) -> None:
        """Send what is queued, within a time limit, and stop."""
        thread = self._thread
        if thread is not None:
            deadline = time.monotonic() + timeout_s
            try:
                self._queue.put(_END, timeout=timeout_s)
            except queue.Full:
                return
            thread.join(max(0.0, deadline - time.monotonic()))

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="servegraph-payloads", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        httpx = import_extra("httpx", feature="payload logging", extra="http")
        with httpx.Client(timeout=_POST_S, trust_env=False) as client:
            while (item := self._queue.get()) is not _END:
                try:
                    self._post(client, *item)
                except Exception as exc:  # noqa: BLE001 - the next one may be sent
                    self._drop(f"{type(exc).__name__}: {exc}")

    def _post(self, client: Any, kind: str, node: str, url: str, puid: str, message: Message | Feedback) -> None:
        body = feedback_to_rest(message) if isinstance(message, Feedback) else message_to_rest(message)
        headers = {
            **self._origin.headers(),
            "ce-id": str(uuid.uuid4()),
            "ce-type": EVENT_TYPES[kind],
            "ce-requestid": puid,
            "ce-modelid": node,
        }
        client.post(url, content=jsoncodec.dumps(body), headers=headers).raise_for_status()

    def _drop(self, why: str) -> None:
        self.dropped += 1
        now = time.monotonic()
        if now - self._complained >= _COMPLAIN_EVERY_S:
            self._complained = now
            logger.warning("payloads are not logged (%d so far): %s", self.dropped, why)


def _copied(message: Message | Feedback) -> Message | Feedback:
    if isinstance(message, Feedback):
        parts = (_copy(message.request), _copy(message.response), _copy(message.truth))
        return Feedback(*parts, message.reward)
    return _copy(message)


def _copy(message: Message) -> Message:
    value = isolate(message.value) if message.kind in ("data", "jsonData") else message.value
    return Message(message.kind, value, list(message.names), message.encoding, message.meta.copy(), message.status)
