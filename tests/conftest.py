"""What tests of every room share."""

from __future__ import annotations

import socket

import pytest
from hypothesis import settings

# A machine that is busy makes single examples slow; what hangs is found by the time limit of the test.
settings.register_profile("servegraph", deadline=None)
settings.load_profile("servegraph")


@pytest.fixture
def free_port() -> int:
    """A TCP port on 127.0.0.1 that nothing listens on at this moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
