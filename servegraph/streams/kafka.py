"""``kafka://broker[:port][,broker2]/topic``: records as Kafka messages."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from servegraph.errors import StreamError
from servegraph.importing import import_extra
from servegraph.streams.base import Encoded, OutputStream, PushError, count, positive
from servegraph.streams.uri import redact

logger = logging.getLogger("servegraph.streams")

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_POLL_S = 0.05
_GRACE_S = 1.0  # after a message's own time-out, for its report to come in
_OURS = frozenset(
    {"bootstrap.servers", "metadata.broker.list", "message.timeout.ms", "delivery.timeout.ms", "error_cb", "logger"}
)

ConfigValue = str | int | float | bool


class _Push:
    """The delivery reports of one push; filled from whichever thread polls the producer."""

    def __init__(self, batch: Sequence[Encoded]) -> None:
        self.batch = batch
        self.waiting = dict.fromkeys(range(len(batch)))
        self.failed: dict[int, Any] = {}  # position in the batch -> KafkaError

    def report(self, position: int, error: Any) -> None:
        if error is not None:
            self.failed[position] = error
        self.waiting.pop(position, None)


class _ClientError:
    """What the client said last about its connections; a message that timed out does not tell why."""

    def __init__(self) -> None:
        self.last: Any = None

    def note(self, error: Any) -> None:
        if self.last is None or not error.str().endswith("brokers are down"):
            self.last = error


class KafkaStream(OutputStream):
    """Messages to one topic; the record's key is the message key, so it chooses the partition.

    A push returns when the brokers have acknowledged every record of it. Order is kept within a partition
    and a retry by the client writes nothing twice. Keys go to the partitions that Java clients choose.

    Args:
        uri: brokers, separated by commas, and the topic as path or as ``?topic=``, which goes first.
        brokers: further brokers.
        timeout_s: how long a record may take to be acknowledged.
        max_queued: how many records may wait in the client.
        config: further librdkafka settings (``security.protocol``, ``sasl.password``, ...).
    """

    def __init__(
        self,
        uri: str,
        *,
        brokers: str | Iterable[str] = (),
        timeout_s: float = 10.0,
        max_queued: int = 10_000,
        config: Mapping[str, ConfigValue] | None = None,
    ) -> None:
        super().__init__(uri)
        self._kafka: Any = import_extra("confluent_kafka", feature=f"the stream {self.uri}", extra="kafka")
        named, self.topic = _split(uri)
        further = brokers.split(",") if isinstance(brokers, str) else [str(b) for b in brokers]
        self._brokers = [*named, *(b.strip() for b in further if b.strip())]
        if not self._brokers:
            raise StreamError(f"{self.uri} names no broker: write kafka://host[:port][,host2]/topic")
        self._timeout_s = positive(timeout_s, "timeout_s", uri)
        self._max_queued = count(max_queued, "max_queued", uri)
        self._config = dict(config or {})
        for name in self._config:
            if name in _OURS:
                raise StreamError(f"{self.uri}: {name!r} is set by the address and the options, not by config")
        self._client_error = _ClientError()
        self._producer: Any = None

    def _settings(self) -> dict[str, Any]:
        return {
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "queue.buffering.max.kbytes": 64 * 1024,
            "log_level": 2,  # a broker that is away is told once, by the push that fails, not at each attempt
            **self._config,
            "bootstrap.servers": ",".join(self._brokers),
            "message.timeout.ms": max(10, int(self._timeout_s * 1000)),
            "queue.buffering.max.messages": self._max_queued,
            "error_cb": self._client_error.note,
            "logger": logger,
        }

    def _opened(self) -> Any:
        with self._lock:
            self._check_open()
            if self._producer is None:
                try:
                    self._producer = self._kafka.Producer(self._settings())
                except (self._kafka.KafkaException, TypeError, ValueError) as exc:
                    raise StreamError(f"{self.uri}: {self._reason(exc)}") from exc
            return self._producer

    def _reason(self, error: Any) -> str:
        """What the client says, without the values of secret settings."""
        first = error.args[0] if getattr(error, "args", ()) else error
        text = str(first.str() if hasattr(first, "str") else first)
        for name, value in self._config.items():
            if re.search(r"password|secret|key|token|oauth", name) and str(value):
                text = text.replace(str(value), "***")
        return text

    def _write(self, batch: Sequence[Encoded]) -> None:
        producer = self._opened()
        push = _Push(batch)
        deadline = time.monotonic() + self._timeout_s
        for position in range(len(batch)):
            if not self._enqueue(producer, push, position, deadline):
                for late in range(position, len(batch)):  # keep the order: nothing after it is sent
                    push.report(late, self._kafka.KafkaError(self._kafka.KafkaError._QUEUE_FULL))
                break
        deadline = time.monotonic() + self._timeout_s + _GRACE_S
        while push.waiting and time.monotonic() < deadline:
            producer.poll(_POLL_S)
        self._raise_for(push, producer)

    def _enqueue(self, producer: Any, push: _Push, position: int, deadline: float) -> bool:
        """Hand one record to the client, waiting for room; False when there is none in time."""
        record, payload = push.batch[position]
        headers = [(name, value.encode()) for name, value in record.headers.items()] if record.headers else None

        def on_delivery(error: Any, _message: Any) -> None:
            push.report(position, error)

        while True:
            try:
                producer.produce(self.topic, payload, key=record.key, headers=headers, on_delivery=on_delivery)
            except BufferError:
                if time.monotonic() >= deadline:
                    return False
                producer.poll(_POLL_S)
            except self._kafka.KafkaException as exc:
                push.report(position, exc.args[0])
                return True
            else:
                producer.poll(0)
                return True

    def _raise_for(self, push: _Push, producer: Any) -> None:
        # The reports may still come in: look at a copy.
        failed = dict(push.failed)
        waiting = set(push.waiting)
        if not failed and not waiting:
            return
        errors = list(failed.values())
        if any(error.fatal() for error in errors):
            with self._lock:
                if self._producer is producer:
                    self._producer = None  # it takes nothing any more; the next push makes another
        kinds = self._kafka.KafkaError
        never = {kinds.MSG_SIZE_TOO_LARGE, kinds.INVALID_MSG, kinds.INVALID_RECORD}
        refused = {position for position, error in failed.items() if error.code() in never}
        again = sorted((waiting | set(failed)) - refused)
        reason = self._reason(errors[0]) if errors else f"no answer within {self._timeout_s:g} s"
        if again and self._client_error.last is not None:
            reason += f" ({self._reason(self._client_error.last)})"
        message = f"{self.uri}: {len(again) + len(refused)} of {len(push.batch)} records were not delivered: {reason}"
        raise PushError(
            message,
            undelivered=[push.batch[position][0] for position in again],
            refused=[push.batch[position][0] for position in sorted(refused)],
        )

    def _flush(self, timeout_s: float) -> None:
        producer = self._producer
        if producer is not None:
            left = producer.flush(timeout_s)
            if left:
                raise StreamError(f"{self.uri}: {left} records were not delivered within {timeout_s:g} s")

    def _release(self) -> None:
        with self._lock:
            self._producer = None

    def _forget(self) -> None:
        if self._producer is not None:
            _of_parents.append(self._producer)
            self._producer = None


# Producers of a parent process: their threads are not in this one, so their destructor must not run.
_of_parents: list[Any] = []


def _split(uri: str) -> tuple[list[str], str]:
    """Brokers and topic of an address."""
    shown = redact(uri)
    rest, _, query = uri.partition("://")[2].partition("?")
    hosts, _, path = rest.partition("/")
    if "@" in hosts:
        raise StreamError(
            f"{shown}: give user and password as config (sasl.username, sasl.password), not in the address"
        )
    options = dict(parse_qsl(query, keep_blank_values=True))
    topic = options.pop("topic", "") or path.strip("/")
    if options:
        raise StreamError(f"{shown}: unknown query {', '.join(sorted(options))}; valid: topic")
    if not topic:
        raise StreamError(f"{shown} names no topic: write kafka://host[:port]/topic or kafka://host?topic=name")
    if not _TOPIC.fullmatch(topic) or topic in {".", ".."}:
        raise StreamError(f"{shown}: a topic is made of letters, digits, '.', '_' and '-', at most 249 of them")
    return [host.strip() for host in hosts.split(",") if host.strip()], topic
