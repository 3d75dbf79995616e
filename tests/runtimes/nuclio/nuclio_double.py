"""A double of Nuclio's processor and wrapper: what goes over their socket, in this process.

Events and answers pass through the SDK's own deserializer and encoder, as the wrapper's do; the processor's part is
what it makes of an answer: the body by its encoding, and of the header fields those whose values are texts.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import inspect
import json
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nuclio_sdk
from nuclio_sdk.json_encoder import Encoder


@dataclass
class Answer:
    """What a client of the processor gets."""

    status: int
    body: bytes
    content_type: str
    headers: dict[str, str]

    def json(self) -> Any:
        return json.loads(self.body)


class RecordingLogger:
    """Takes what the wrapper's logger takes."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def _log(self, level: str, message: str) -> None:
        assert asyncio.get_running_loop() is not None  # on the loop's thread
        self.lines.append((level, message))

    def debug(self, message: str, *args: Any) -> None:
        self._log("debug", message)

    def info(self, message: str, *args: Any) -> None:
        self._log("info", message)

    def warn(self, message: str, *args: Any) -> None:
        self._log("warn", message)

    def error(self, message: str, *args: Any) -> None:
        self._log("error", message)


class Worker:
    """One wrapper process's life: import, ``init_context``, events, signals."""

    def __init__(self, config: Mapping[str, Any], folder: Path, trigger: tuple[str, str] = ("http", "http")) -> None:
        module, _, handler = config["spec"]["handler"].partition(":")
        (folder / f"{module}.py").write_bytes(base64.b64decode(config["spec"]["build"]["functionSourceCode"]))
        self.environment = {v["name"]: v["value"] for v in config["spec"]["env"] if "value" in v}
        self.logger = RecordingLogger()
        self.platform = nuclio_sdk.Platform("local", "nuclio")
        self.context = nuclio_sdk.Context(self.logger, self.platform, "0", nuclio_sdk.TriggerInfo(*trigger))
        sys.modules.pop(module, None)
        importlib.invalidate_caches()
        sys.path.insert(0, str(folder))
        try:
            self.entrypoint = getattr(__import__(module), handler)
        finally:
            sys.path.remove(str(folder))
        assert inspect.iscoroutinefunction(self.entrypoint)

    async def start(self) -> None:
        init = vars(sys.modules[self.entrypoint.__module__])["init_context"]
        result = init(self.context)
        if inspect.iscoroutinefunction(init):
            await result

    async def send(self, *messages: Mapping[str, Any], raw: bool = False) -> Any:
        kinds = nuclio_sdk.EventDeserializerKinds
        deserializer = (kinds.msgpack_raw if raw else kinds.msgpack).value
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the SDK's own
            events = [deserializer.deserialize(_raw(m) if raw else m) for m in messages]
        output = await self.entrypoint(self.context, events[0] if len(events) == 1 else events)
        if isinstance(output, list):
            return {r.event_id: self._answer(r) for r in output}
        return self._answer(output)

    def _answer(self, output: Any) -> Answer:
        assert isinstance(output, nuclio_sdk.Response)
        assert isinstance(output.body, (str, bytes))
        line = Encoder().encode(nuclio_sdk.Response.from_entrypoint_output(Encoder().encode, output))
        assert "\n" not in line
        answer = json.loads(line)
        body = base64.b64decode(answer["body"]) if answer["body_encoding"] == "base64" else answer["body"].encode()
        headers = {k: v for k, v in answer["headers"].items() if isinstance(v, str)}
        assert headers.keys() == answer["headers"].keys()
        return Answer(answer["status_code"], body, answer["content_type"], headers)

    async def request(self, path: str = "/", body: Any = None, **fields: Any) -> Any:
        return await self.send(message(path, body, **fields))

    async def signal(self, kind: str) -> None:
        result = self.platform._on_signal(kind)
        if inspect.isawaitable(result):
            await result


def message(path: str = "/", body: Any = None, content_type: str | None = None, **fields: Any) -> dict[str, Any]:
    """An event as the processor packs it; any value but bytes and None goes as JSON."""
    if content_type is None:
        content_type = "" if body is None or isinstance(body, bytes) else "application/json"
    return {
        "content_type": content_type,
        "content-type": content_type,
        "trigger": {"kind": "http", "name": "http"},
        "fields": {},
        "headers": {},
        "id": "0f6a",
        "method": "GET" if body is None else "POST",
        "path": path,
        "size": 0,
        "timestamp": int(time.time()),
        "url": f"http://127.0.0.1:8080{path}",
        "shard_id": -1,
        "num_shards": 0,
        "type": "",
        "type_version": "",
        "version": "",
        "body": b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode(),
        **fields,
    }


def _raw(value: Any) -> Any:
    """A message as it is unpacked without decoding its strings."""
    if isinstance(value, Mapping):
        return {_raw(k): _raw(v) for k, v in value.items()}
    return value.encode() if isinstance(value, str) else value
