"""A small application for real workers of a real supervisor; run as a script it is the supervisor's process."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from servegraph.errors import ModelLoadError, SettingsError
from servegraph.monitoring.metrics import MetricsRegistry
from servegraph.runtimes.listening import Listen
from servegraph.runtimes.supervisor import Supervisor
from servegraph.runtimes.worker_protocol import Receive, Scope, Send, Target, WorkerInfo
from servegraph.settings import ServerSettings


class TinyApplication:
    def __init__(self, target: dict[str, Any], info: WorkerInfo) -> None:
        self.target = target
        self.info = info
        self.text = Path(target["file"]).read_text() if "file" in target else ""
        self.ready = False
        self.draining = False
        self.active = 0
        self.stuck = 0
        self.registry = MetricsRegistry(Path(info.metrics_directory), info.slot)
        self.requests = self.registry.counter("requests_total", "Requests.")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.active += 1
        self.requests.inc()
        try:
            status, body = await self.answer(scope["path"].strip("/").split("/"), scope, receive)
            headers = [(b"content-length", str(len(body)).encode())]
            if self.draining:
                headers.append((b"connection", b"close"))
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        finally:
            self.active -= 1

    async def answer(self, path: list[str], scope: Scope, receive: Receive) -> tuple[int, bytes]:
        match path:
            case ["ready"]:
                return (200 if self.ready and not self.draining else 503), b""
            case ["sleep", seconds]:
                await asyncio.sleep(float(seconds))
            case ["block", seconds]:
                time.sleep(float(seconds))
            case ["exit", code]:
                os._exit(int(code))
            case ["stuck"]:
                self.stuck = 1
            case ["metrics"]:
                return 200, self.registry.render()
            case ["text"]:
                return 200, self.text.encode()
            case ["big"]:
                return 200, b"x" * 5_000_000
            case ["echo"]:
                body, more = b"", True
                while more:
                    message = await receive()
                    body, more = body + message["body"], message["more_body"]
                fields = [[k.decode(), v.decode()] for k, v in scope["headers"]]
                return 200, json.dumps({"size": len(body), "headers": fields}).encode()
            case _:
                pass
        return 200, json.dumps({"pid": os.getpid(), "slot": self.info.slot, "starts": self.info.starts}).encode()

    async def startup(self) -> None:
        await asyncio.sleep(self.target.get("load_s", 0))
        if message := self.target.get("fail_startup"):
            raise ModelLoadError(message)
        self.ready = True

    def begin_drain(self) -> None:
        self.draining = True

    def in_flight(self) -> int:
        return self.active

    def stuck_calls(self) -> int:
        return self.stuck

    async def aclose(self) -> None:
        if "closed_file" in self.target:
            Path(self.target["closed_file"]).write_text("closed")


def build(target: Target, settings: ServerSettings, info: WorkerInfo) -> TinyApplication:
    assert isinstance(target, dict)
    if message := target.get("fail"):
        raise ValueError(message)
    if code := target.get("exit"):
        os._exit(code)
    if "python_file" in target:
        exec(compile(Path(target["python_file"]).read_text(), target["python_file"], "exec"), {})
    return TinyApplication(target, info)


def main(argument: str) -> int:
    logging.basicConfig(level="INFO", format="%(levelname)s %(name)s: %(message)s")
    data = json.loads(argument)
    settings = ServerSettings.from_dict(data["settings"])
    try:
        listeners = {
            name: Listen("127.0.0.1", port, reserve=name == "grpc") for name, port in data["listeners"].items()
        }
        supervisor = Supervisor(settings, data["factory"], data["target"], data["watch"], listeners)
        supervisor.bind()
        first_line = " ".join(f"{name}={port}" for name, (_, port) in supervisor.addresses().items())
    except SettingsError as exc:
        sys.stdout.write(f"{exc}\n")
        return 2
    sys.stdout.write(first_line + "\n")
    sys.stdout.flush()
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
