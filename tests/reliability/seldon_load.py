"""Clients of a component, over REST and gRPC, that predict all the time and know what was lost."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator, Sequence

import grpc
from seldon_command import Microservice

from servegraph.serving.seldon.proto import prediction_pb2, prediction_pb2_grpc

BODY = json.dumps({"data": {"ndarray": [[1.0, 2.0]]}}).encode()
GONE = ("Connection refused", "failed to connect", "Socket closed before settings", "GOAWAY received")


class Client(threading.Thread):
    """Predicts in a closed loop; counts what was answered, and what was lost on the way."""

    def __init__(self, port: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.port, self.stop = port, stop
        self.right = 0
        self.lost: list[str] = []
        self.refused = 0
        self.unheard = 0


class RestClient(Client):
    """On a kept connection; one that is to be closed is opened again."""

    def run(self) -> None:
        while not self.stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            with contextlib.closing(connection):
                try:
                    connection.connect()
                except ConnectionError:
                    self.refused += 1
                    self.stop.wait(0.01)
                    continue
                before = self.right
                try:
                    while not self.stop.is_set() and self._ask(connection):
                        pass
                except ConnectionResetError as exc:
                    if self.right > before:
                        self.lost.append(repr(exc))
                    self.unheard += self.right == before  # perhaps only the kernel had taken the connection
                except (OSError, http.client.HTTPException) as exc:
                    self.lost.append(repr(exc))

    def _ask(self, connection: http.client.HTTPConnection) -> bool:
        """One prediction; whether the connection stays."""
        connection.request("POST", "/predict", BODY, {"content-type": "application/json"})
        with connection.getresponse() as answer:
            raw = answer.read()
            if answer.status == 200 and json.loads(raw)["data"]["ndarray"] == [[1.0, 2.0]]:
                self.right += 1
            else:
                self.lost.append(f"{answer.status} {raw[:200]!r}")
            return not answer.will_close


class GrpcClient(Client):
    """On a channel of its own, which makes new connections by itself."""

    def run(self) -> None:
        data = prediction_pb2.DefaultData(tensor=prediction_pb2.Tensor(shape=[1, 2], values=[1.0, 2.0]))
        message = prediction_pb2.SeldonMessage(data=data)
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 50)]
        with grpc.insecure_channel(f"127.0.0.1:{self.port}", options=options) as channel:
            model = prediction_pb2_grpc.ModelStub(channel)
            while not self.stop.is_set():
                call = model.Predict.future(message, timeout=30)
                if call.code() is grpc.StatusCode.OK:
                    self.right += call.result().data.tensor.values == [1.0, 2.0]
                elif any(word in call.details() for word in GONE):
                    self.refused += 1
                    self.stop.wait(0.01)
                else:
                    self.lost.append(f"{call.code()} {call.details()}")


@contextlib.contextmanager
def load(server: Microservice, rest: int = 4, rpc: int = 2) -> Iterator[list[Client]]:
    """Clients of both interfaces that predict all the time in the ``with`` block."""
    stop = threading.Event()
    clients: list[Client] = [RestClient(server.port, stop) for _ in range(rest)]
    clients += [GrpcClient(server.grpc_port, stop) for _ in range(rpc)]
    for client in clients:
        client.start()
    try:
        wait_until_each_has(clients, 20)
        yield clients
    finally:
        stop.set()
        for client in clients:
            client.join(40)


def wait_until_each_has(clients: Sequence[Client], answers: int) -> None:
    """Wait until each client has got so many more answers."""
    goals = [client.right + answers for client in clients]
    turn = threading.Event()
    for _ in range(3000):
        if all(client.right >= goal for client, goal in zip(clients, goals, strict=True)):
            return
        turn.wait(0.01)
    raise AssertionError([(client.right, client.lost[:2]) for client in clients])
