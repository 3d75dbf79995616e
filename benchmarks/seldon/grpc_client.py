"""A gRPC client in Python, run as a script: the same call again and again, on so many connections and streams.

It prints one line of JSON. Each stream asks again when it is answered.
"""

from __future__ import annotations

import asyncio
import json
import pathlib
import sys
import time

import grpc


class _Seen:
    def __init__(self) -> None:
        self.latencies_ms: list[float] = []
        self.failed = 0
        self.unreachable = 0


async def _ask(call: grpc.aio.UnaryUnaryMultiCallable, message: bytes, until: float, seen: _Seen) -> None:
    while (start := time.perf_counter()) < until:
        try:
            await asyncio.wait_for(call(message), until - start)
        except TimeoutError:
            return
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                seen.unreachable += 1
            else:
                seen.failed += 1
        seen.latencies_ms.append((time.perf_counter() - start) * 1000)


async def _run(address: str, method: str, message: bytes, connections: int, streams: int, seconds: float) -> None:
    # A pool of its own, or all channels would share one connection.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(connections)]
    calls = [channel.unary_unary(method) for channel in channels for _ in range(streams)]
    seen = _Seen()
    start = time.perf_counter()
    await asyncio.gather(*(_ask(call, message, start + seconds, seen) for call in calls))
    took = time.perf_counter() - start
    for channel in channels:
        await channel.close()
    print(json.dumps({name: getattr(seen, name) for name in vars(seen)} | {"seconds": took}))


if __name__ == "__main__":
    asyncio.run(
        _run(
            sys.argv[1],
            sys.argv[2],
            pathlib.Path(sys.argv[3]).read_bytes(),
            int(sys.argv[4]),
            int(sys.argv[5]),
            float(sys.argv[6]),
        )
    )
