from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest

from servegraph import streams
from servegraph.errors import MissingExtraError, StreamError
from servegraph.streams import OutputStream, open_stream, register_scheme, registry
from servegraph.streams.base import Encoded


class Null(OutputStream):
    def __init__(self, uri: str, *, size: int = 1) -> None:
        super().__init__(uri)
        self.size = size

    def _write(self, batch: Sequence[Encoded]) -> None:
        pass


@pytest.fixture
def null_scheme() -> Iterator[str]:
    register_scheme("null", Null)
    yield "null"
    del registry._registered["null"]


def test_public_names_are_these() -> None:
    assert sorted(streams.__all__) == [
        "MemoryStream",
        "OutputStream",
        "PushError",
        "Record",
        "StreamFactory",
        "open_stream",
        "redact",
        "register_scheme",
    ]


def test_registered_scheme_gets_address_and_options(null_scheme: str) -> None:
    stream = open_stream("NULL://u:pw@x", size=3)
    assert isinstance(stream, Null)
    assert (stream.size, stream.uri) == (3, "NULL://***@x")


@pytest.mark.parametrize("scheme", ["file", "null"])
def test_register_scheme_twice_is_an_error(null_scheme: str, scheme: str) -> None:
    with pytest.raises(StreamError, match=f"'{scheme}' is registered already"):
        register_scheme(scheme, Null)


def test_register_scheme_with_a_bad_name_is_an_error() -> None:
    with pytest.raises(StreamError, match="is not a scheme"):
        register_scheme("My_Scheme", Null)


def test_unknown_scheme_names_the_nearest_and_all() -> None:
    with pytest.raises(
        StreamError, match=r"unknown stream scheme 'kafak'; did you mean 'kafka'.*dummy, file, http"
    ) as caught:
        open_stream("kafak://u:pw@host/topic")
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("uri", ["", "topic", "/var/log/x", "u:secret@host/topic", "://x"])
def test_address_without_scheme_says_what_to_write(uri: str) -> None:
    with pytest.raises(StreamError, match=r"has no scheme: write file:///path/records\.jsonl, kafka://") as caught:
        open_stream(uri)
    assert "secret" not in str(caught.value)


def test_address_that_is_no_string_is_told() -> None:
    with pytest.raises(StreamError, match="is a string, not NoneType"):
        open_stream(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("uri", "option", "message"),
    [
        ("file:///x/y", "max_byte", "file:// streams have no option 'max_byte'; did you mean 'max_bytes'.* backups, "),
        ("dummy://", "shards", "dummy:// streams have no option 'shards'; valid: max_records"),
        ("http://h/", "retries", "valid: batch, ca_file, headers, timeout"),
        ("kafka://h/t", "conf", "did you mean 'config'.* brokers, config, max_queued, timeout_s"),
    ],
)
def test_unknown_option_lists_those_of_the_scheme(uri: str, option: str, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        open_stream(uri, **{option: 1})


@pytest.mark.parametrize(
    ("uri", "package", "extra"), [("http://h/", "httpx", "http"), ("kafka://h/t", "confluent_kafka", "kafka")]
)
def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, uri: str, package: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'servegraph\[{extra}\]'"):
        open_stream(uri)


def test_import_brings_in_no_client_package() -> None:
    code = "import sys, servegraph.monitoring.tap; print({'httpx', 'confluent_kafka', 'numpy'} & {*sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
