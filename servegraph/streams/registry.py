"""From an address to a stream: which scheme is served by which transport, and with which options."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable

from servegraph.errors import StreamError, closest
from servegraph.importing import import_object
from servegraph.streams.base import OutputStream
from servegraph.streams.uri import SCHEME, redact, scheme_of

StreamFactory = Callable[..., OutputStream]
"""Called with the address and the options as keywords; its keyword parameters are the scheme's options."""

# Imported when an address asks for them.
_BUILT_IN = {
    "dummy": "servegraph.streams.memory:MemoryStream",
    "file": "servegraph.streams.file:FileStream",
    "http": "servegraph.streams.http:HttpStream",
    "https": "servegraph.streams.http:HttpStream",
    "kafka": "servegraph.streams.kafka:KafkaStream",
}
_registered: dict[str, StreamFactory] = {}
_lock = threading.Lock()


def register_scheme(scheme: str, factory: StreamFactory) -> None:
    """Serve ``scheme://`` addresses by ``factory(uri, **options)``.

    Raises:
        StreamError: the scheme is taken, or is not a scheme (lower-case letters, digits, ``+``, ``.``, ``-``).
    """
    if not SCHEME.fullmatch(scheme):
        raise StreamError(f"{scheme!r} is not a scheme: write lower-case letters, digits, '+', '.' and '-'")
    with _lock:
        if scheme in _BUILT_IN or scheme in _registered:
            raise StreamError(f"the scheme {scheme!r} is registered already")
        _registered[scheme] = factory


def open_stream(uri: str, **options: object) -> OutputStream:
    """The output stream behind an address; transports connect at the first push.

    Args:
        uri: ``dummy://[name]``, ``file:///path``, ``http(s)://...``, ``kafka://broker/topic`` or a registered scheme.
        **options: what the scheme's transport takes (see its class).

    Raises:
        StreamError: no or an unknown scheme, an unknown option, or a value that the transport cannot take.
        MissingExtraError: the transport's package is not installed.
    """
    if not isinstance(uri, str):
        raise StreamError(f"a stream address is a string, not {type(uri).__name__}")
    scheme = scheme_of(uri)
    if scheme is None:
        raise StreamError(
            f"the stream address {redact(uri)!r} has no scheme: write file:///path/records.jsonl, "
            "kafka://broker/topic, https://host/path or dummy://name"
        )
    factory = _factory(scheme)
    _check_options(scheme, factory, options)
    return factory(uri, **options)


def _factory(scheme: str) -> StreamFactory:
    found = _registered.get(scheme)
    if found is not None:
        return found
    reference = _BUILT_IN.get(scheme)
    if reference is None:
        raise StreamError(f"unknown stream scheme {scheme!r}; {closest(scheme, {*_BUILT_IN, *_registered})}")
    factory: StreamFactory = import_object(reference)
    return factory


def _check_options(scheme: str, factory: StreamFactory, options: dict[str, object]) -> None:
    if not options:
        return
    _, *parameters = inspect.signature(factory).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    valid = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    for name in options:
        if name not in valid:
            raise StreamError(f"{scheme}:// streams have no option {name!r}; {closest(name, valid)}")
