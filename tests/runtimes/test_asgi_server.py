from __future__ import annotations

import asyncio
import socket

from servegraph.runtimes.asgi_server import AsgiServer
from servegraph.runtimes.listening import HTTP, Listen, Listeners
from servegraph.runtimes.worker_protocol import Receive, Scope, Send
from servegraph.settings import LimitSettings

REQUEST = b"GET /somewhere HTTP/1.1\r\nhost: here\r\n\r\n"


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


def answer_of(client: socket.socket) -> bytes:
    """One whole answer, whose head and body may come apart; or what came before the connection ended."""
    answer = b""
    while not answer.endswith(b"hello") and (more := client.recv(1 << 16)):
        answer += more
    return answer


def test_server_that_stops_accepting_answers_connections_that_waited_to_be_accepted() -> None:
    async def run() -> list[bytes]:
        server = AsgiServer(hello, LimitSettings())
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            await server.listen(listening)
            address = listening.getsockname()
            # The kernel takes them while the event loop does not come to it.
            clients = [socket.create_connection(address, timeout=20) for _ in range(5)]
            for client in clients:
                client.sendall(REQUEST)
            server.stop_accepting()
        assert await server.finish(20)
        answers = []
        for client in clients:
            with client:
                answers.append(await asyncio.to_thread(answer_of, client))
        return answers

    answers = asyncio.run(run())
    assert len(answers) == 5
    assert all(answer.startswith(b"HTTP/1.1 200 OK") and answer.endswith(b"hello") for answer in answers)


def test_port_of_a_server_that_closed_its_connections_can_be_reserved_again_at_once() -> None:
    async def run() -> int:
        listeners = Listeners({HTTP: Listen("127.0.0.1", 0, reserve=True)})
        listeners.open()
        port = listeners.address(HTTP)[1]
        server = AsgiServer(hello, LimitSettings())
        await server.listen(listeners.take(HTTP))
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(REQUEST)
            assert (await asyncio.to_thread(answer_of, client)).endswith(b"hello")
            server.stop_accepting()
            assert await server.finish(20)
            assert await asyncio.to_thread(client.recv, 1) == b""  # the server was the first to close
        return port

    port = asyncio.run(run())
    again = Listeners({HTTP: Listen("127.0.0.1", port, reserve=True)})
    again.open()
    again.close()


def test_server_whose_listening_was_ended_by_another_process_drains_all_the_same() -> None:
    async def run() -> bytes:
        server = AsgiServer(hello, LimitSettings())
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            await server.listen(listening)
            with socket.create_connection(listening.getsockname(), timeout=20) as client:
                client.sendall(REQUEST)
                answer = await asyncio.to_thread(answer_of, client)
                listening.shutdown(socket.SHUT_RDWR)  # as a supervisor does, which does not wait for a busy worker
                server.stop_accepting()
                assert await server.finish(20)
                return answer

    assert asyncio.run(run()).startswith(b"HTTP/1.1 200 OK")
