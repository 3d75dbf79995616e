"""What tests of every room share."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator

import pytest
from hypothesis import settings

# A machine that is busy makes single examples slow; what hangs is found by the time limit of the test.
settings.register_profile("servegraph", deadline=None)
settings.load_profile("servegraph")


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    """What commands make loggers say ends with the test that runs them."""
    before = dict(_levels())
    yield
    for name, level in _levels():
        if level != before.get(name, logging.NOTSET) and (name in before or name.startswith("servegraph")):
            logging.getLogger(name).setLevel(before.get(name, logging.NOTSET))


def _levels() -> list[tuple[str, int]]:
    known = logging.root.manager.loggerDict.copy()
    return [("", logging.root.level), *((n, one.level) for n, one in known.items() if isinstance(one, logging.Logger))]


@pytest.fixture
def free_port() -> int:
    """A TCP port on 127.0.0.1 that nothing listens on at this moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
