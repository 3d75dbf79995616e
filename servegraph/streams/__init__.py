"""Append-only logs behind addresses: memory, files, HTTP and Kafka.

``open_stream(uri)`` gives the stream of an address; its transport's module, and the package which that needs,
are imported then. This package knows nothing of graphs.
"""

from servegraph.streams.base import OutputStream, PushError, Record
from servegraph.streams.memory import MemoryStream
from servegraph.streams.registry import StreamFactory, open_stream, register_scheme
from servegraph.streams.uri import redact

__all__ = [
    "MemoryStream",
    "OutputStream",
    "PushError",
    "Record",
    "StreamFactory",
    "open_stream",
    "redact",
    "register_scheme",
]
