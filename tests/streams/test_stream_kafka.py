from __future__ import annotations

import os
import select
import socket
import socketserver
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import confluent_kafka
import pytest

from servegraph import jsoncodec
from servegraph.errors import StreamError
from servegraph.streams import PushError, Record, open_stream
from servegraph.streams.kafka import KafkaStream


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    """The address of librdkafka's own broker, which lives as long as this producer."""
    host = confluent_kafka.Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
    (node,) = host.list_topics(timeout=10).brokers.values()
    yield f"{node.host}:{node.port}"
    host.flush(1)


@pytest.fixture
def topic() -> str:
    return f"t-{uuid.uuid4().hex}"


def consume(broker: str, topic: str, number: int) -> list[Any]:
    """The messages of a topic: as many as asked for, and what else is there."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": broker, "group.id": topic, "enable.partition.eof": True})
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([confluent_kafka.TopicPartition(topic, p, 0) for p in partitions])
        messages: list[Any] = []
        ended: set[Any] = set()
        deadline = time.monotonic() + 20
        while (len(messages) < number or len(ended) < len(partitions)) and time.monotonic() < deadline:
            message: Any = consumer.poll(0.1)
            if message is None:
                continue
            error: Any = message.error()
            if error is None:
                messages.append(message)
            elif error.code() == confluent_kafka.KafkaError._PARTITION_EOF:
                ended.add(message.partition())
        return messages
    finally:
        consumer.close()


def test_push_is_seen_by_a_consumer(broker: str, topic: str) -> None:
    with open_stream(f"kafka://{broker}/{topic}") as stream:
        stream.push(
            [Record({"n": 1}, key="k", headers={"class": "M"}), Record(b"\xff\x00", key="k"), Record("t", key="k")]
        )
    messages = consume(broker, topic, 3)
    assert [m.value() for m in messages] == [b'{"n":1}', b"\xff\x00", b'"t"']
    assert {m.key() for m in messages} == {b"k"}
    assert messages[0].headers() == [("class", b"M")]
    assert len({m.partition() for m in messages}) == 1


def test_push_keeps_the_order_of_each_key(broker: str, topic: str) -> None:
    with open_stream(f"kafka://nobody.invalid?topic={topic}", brokers=broker, max_queued=50) as stream:
        for start in range(0, 300, 100):
            stream.push([Record(n, key=f"key-{n % 7}") for n in range(start, start + 100)])
    seen: dict[bytes, list[int]] = {}
    for message in consume(broker, topic, 300):
        seen.setdefault(message.key(), []).append(jsoncodec.loads(message.value()))
    assert seen == {f"key-{k}".encode(): list(range(k, 300, 7)) for k in range(7)}


def test_push_from_several_threads_delivers_all_once(broker: str, topic: str) -> None:
    with open_stream(f"kafka://{broker}/{topic}") as stream:

        def work(worker: int) -> None:
            for n in range(5):
                stream.push([Record([worker, n, i]) for i in range(10)])

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    seen = [tuple(jsoncodec.loads(m.value())) for m in consume(broker, topic, 150)]
    assert sorted(seen) == [(w, n, i) for w in range(3) for n in range(5) for i in range(10)]


def test_record_that_is_too_large_is_refused_and_the_others_arrive(broker: str, topic: str) -> None:
    large = Record(b"x" * 3000)
    with open_stream(f"kafka://{broker}/{topic}", config={"message.max.bytes": 2000}) as stream:
        with pytest.raises(PushError, match=r"1 of 3 records were not delivered: .*[Ll]arge") as caught:
            stream.push([Record(1), large, Record(2)])
        assert (caught.value.refused, caught.value.undelivered) == ((large,), ())
    assert sorted(m.value() for m in consume(broker, topic, 2)) == [b"1", b"2"]


def test_broker_that_is_away_raises_in_time_with_the_reason(capfd: pytest.CaptureFixture[str]) -> None:
    records = [Record(n) for n in range(5)]
    stream = open_stream("kafka://127.0.0.1:1/t", timeout_s=0.3, max_queued=3)
    started = time.monotonic()
    with pytest.raises(PushError, match=r"5 of 5 records were not delivered: .*\(.*(refused|down)") as caught:
        stream.push(records)
    assert caught.value.undelivered == tuple(records)
    stream.close()
    assert time.monotonic() - started < 15
    assert capfd.readouterr().err == ""


class Relay(socketserver.ThreadingTCPServer):
    """Connections to the broker, at an address that can come and go."""

    daemon_threads = True
    allow_reuse_address = True
    target: tuple[str, int]


class RelayHandler(socketserver.BaseRequestHandler):
    server: Relay

    def handle(self) -> None:
        with socket.create_connection(self.server.target) as upstream:
            ends = {self.request: upstream, upstream: self.request}
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    ends[end].sendall(data)


@pytest.mark.slow
def test_push_after_an_outage_is_delivered(broker: str, topic: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        address = reserved.getsockname()
    with open_stream(f"kafka://{address[0]}:{address[1]}/{topic}", timeout_s=0.2) as stream:
        with pytest.raises(PushError) as caught:
            stream.push([Record(1), Record(2)])
        host, _, port = broker.partition(":")
        with Relay(address, RelayHandler) as relay:
            relay.target = (host, int(port))
            thread = threading.Thread(target=relay.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            for _ in range(50):
                try:
                    stream.push(caught.value.undelivered)
                except PushError:
                    continue
                break
            relay.shutdown()
            thread.join()
    assert {m.value() for m in consume(broker, topic, 2)} == {b"1", b"2"}


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("kafka://", "names no topic"),
        ("kafka:///t", "names no broker"),
        ("kafka://h", "names no topic"),
        ("kafka://h/a/b", "a topic is made of"),
        ("kafka://h/..", "a topic is made of"),
        ("kafka://h/t?partitions=3", "unknown query partitions; valid: topic"),
        ("kafka://user:secret@h/t", "give user and password as config"),
    ],
)
def test_address_that_cannot_be_used_is_told(uri: str, message: str) -> None:
    with pytest.raises(StreamError, match=message) as caught:
        open_stream(uri)
    assert "secret" not in str(caught.value)


def test_topic_of_the_query_goes_before_the_path() -> None:
    stream = open_stream("kafka://a:1,b/path?topic=query", brokers=["c:3"])
    assert isinstance(stream, KafkaStream)
    assert stream.topic == "query"
    assert stream._brokers == ["a:1", "b", "c:3"]


def test_config_that_the_client_does_not_take_is_told_without_secrets() -> None:
    with pytest.raises(StreamError, match=r"'bootstrap\.servers' is set by the address"):
        open_stream("kafka://h/t", config={"bootstrap.servers": "x"})
    with open_stream("kafka://h/t", config={"bogus": 1}) as stream:
        stream.flush(1)
        with pytest.raises(StreamError, match='No such configuration property: "bogus"'):
            stream.push([Record(1)])
    with open_stream("kafka://h/t", config={"ssl.key.pem": "hush", "security.protocol": "ssl"}) as stream:
        with pytest.raises(StreamError) as caught:
            stream.push([Record(1)])
        assert "hush" not in str(caught.value)


_FORKING = """
import os, sys
from servegraph.streams import Record, open_stream
stream = open_stream(sys.argv[1])
stream.push([Record("parent")])
child = os.fork()
if child == 0:
    stream.push([Record("child")])
    stream.close()
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
stream.push([Record("parent again")])
stream.close()
"""


@pytest.mark.slow
def test_fork_child_has_a_producer_of_its_own_and_ends(broker: str, topic: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", _FORKING, f"kafka://{broker}/{topic}"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=30, env={**os.environ})
    assert run.returncode == 0, run.stderr
    values = sorted(m.value() for m in consume(broker, topic, 3))
    assert values == [b'"child"', b'"parent again"', b'"parent"']
