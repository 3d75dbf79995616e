from __future__ import annotations

import socket
import sys

import pytest

from servegraph.runtimes.listening import HTTP, Listen, Listeners


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="socket filters are Linux's")
def test_listener_that_hears_no_more_gives_out_what_it_has_and_takes_nothing_new() -> None:
    listeners = Listeners({HTTP: Listen("127.0.0.1", 0)})
    listeners.open()
    address = listeners.address(HTTP)
    with socket.create_connection(address, timeout=20):
        listeners.hear_no_more()
        with pytest.raises(TimeoutError):
            socket.create_connection(address, timeout=0.2)
        sock = listeners.take(HTTP)
        with sock, sock.accept()[0]:
            pass
