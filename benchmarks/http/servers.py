"""The servers that are measured: how each starts, what it is asked, where its answer holds the sums.

Every server sums the rows of the same 2x4 array of floats with numpy, in one worker. In the commands and variables
`{python}` and `{bin}` are the interpreter and the scripts of the server's environment, `{models}` is the folder of its
model, `models` beside this file, and `{http}`, `{grpc}`, `{metrics}` are free ports.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

MODELS = pathlib.Path(__file__).resolve().parent / "models"
VALUES = [0.25, 1.5, 2.75, 4.0, 5.125, 6.5, 7.25, 8.0]
SUMS = [sum(VALUES[:4]), sum(VALUES[4:])]
OPEN_INFERENCE_BODY = json.dumps(
    {"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP64", "data": VALUES}]}
).encode()
SELDON_BODY = json.dumps({"data": {"tensor": {"shape": [2, 4], "values": VALUES}}}).encode()
OPEN_INFERENCE_PATH = "/v2/models/rowsums/infer"

BARE = "bare"
SERVEGRAPH = "servegraph"


def _open_inference_sums(answer: dict[str, Any]) -> list[float]:
    return list(answer["outputs"][0]["data"])


def _seldon_sums(answer: dict[str, Any]) -> list[float]:
    return list(answer["data"]["tensor"]["values"])


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """One server of the comparison."""

    name: str
    """What `--peers` and the table call it."""
    command: tuple[str, ...]
    """What starts it, with the placeholders of this module."""
    notes: str
    """What a reader of the table has to know about its settings or its request."""
    environment: str | None = None
    """Its environment under `.envs/`; `None` is the one that runs the benchmark."""
    variables: dict[str, str] = dataclasses.field(default_factory=dict)
    """Environment variables, with the same placeholders."""
    path: str = OPEN_INFERENCE_PATH
    """Where the request is posted."""
    body: bytes = OPEN_INFERENCE_BODY
    """The request's body."""
    sums: Callable[[dict[str, Any]], list[float]] = _open_inference_sums
    """Takes the two sums out of the decoded answer."""
    ends_on_sigterm: bool = True
    """Whether it is worth waiting for it after SIGTERM."""
    models: pathlib.Path = MODELS
    """The folder that `{models}` means."""
    pinned: bool = True
    """Whether it is held to the core for the server; otherwise it may use all of them."""


_PORT_VARIABLES = {
    "BENCH_HTTP_PORT": "{http}",
    "BENCH_GRPC_PORT": "{grpc}",
    "BENCH_METRICS_PORT": "{metrics}",
}

SERVERS: dict[str, Server] = {
    server.name: server
    for server in (
        Server(
            BARE,
            (
                *("{python}", "-m", "uvicorn", "bare:app", "--app-dir", "{models}", "--host", "127.0.0.1"),
                *("--port", "{http}", "--loop", "uvloop", "--http", "httptools", "--lifespan", "off"),
                *("--no-access-log", "--log-level", "warning"),
            ),
            "an ASGI app of 20 lines on uvicorn: orjson, numpy, nothing else; the ceiling",
        ),
        Server(
            SERVEGRAPH,
            (
                *("{bin}/servegraph", "serve", "{models}/servegraph_rowsums.py"),
                *("--http-port", "{http}", "--workers", "1"),
            ),
            "as a user starts it, with its defaults",
        ),
        Server(
            "mlserver",
            ("{bin}/mlserver", "start", "{models}/mlserver"),
            "parallel_workers 0 and debug off, its fastest settings here",
            environment="mlserver",
            variables={
                "MLSERVER_HTTP_PORT": "{http}",
                "MLSERVER_GRPC_PORT": "{grpc}",
                "MLSERVER_METRICS_PORT": "{metrics}",
            },
        ),
        Server(
            "kserve",
            ("{python}", "{models}/kserve_rowsums.py"),
            "access and latency logs off",
            environment="kserve",
            variables=_PORT_VARIABLES,
        ),
        Server(
            "litserve",
            ("{python}", "{models}/litserve_rowsums.py"),
            "no Open Inference Protocol: the same body at /predict; one API process and one worker process",
            environment="litserve",
            variables=_PORT_VARIABLES,
            path="/predict",
        ),
        Server(
            "bentoml",
            ("{bin}/bentoml", "serve", "bentoml_rowsums:RowSums", "--working-dir", "{models}", "--port", "{http}"),
            "no Open Inference Protocol: the same body at /infer; access log off",
            environment="bentoml",
            variables={"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOST": "127.0.0.1"},
            path="/infer",
        ),
        Server(
            "ray",
            ("{python}", "{models}/ray_rowsums.py"),
            "no Open Inference Protocol: the same body at /; one replica and one proxy process, access log off",
            environment="ray",
            variables={**_PORT_VARIABLES, "RAY_USAGE_STATS_ENABLED": "0"},
            path="/",
        ),
        Server(
            "seldon",
            (
                *("{bin}/seldon-core-microservice", "RowSums", "--service-type", "MODEL", "--log-level", "ERROR"),
                *("--workers", "1"),
            ),
            "Seldon's own protocol: the same numbers as a tensor at /api/v1.0/predictions",
            environment="seldon",
            variables={
                "PREDICTIVE_UNIT_HTTP_SERVICE_PORT": "{http}",
                "PREDICTIVE_UNIT_GRPC_SERVICE_PORT": "{grpc}",
                "PREDICTIVE_UNIT_METRICS_SERVICE_PORT": "{metrics}",
                "PYTHONPATH": "{models}/seldon",
            },
            path="/api/v1.0/predictions",
            body=SELDON_BODY,
            sums=_seldon_sums,
            ends_on_sigterm=False,
        ),
        Server(
            "pytriton",
            ("{python}", "{models}/pytriton_rowsums.py"),
            "Triton through pytriton, on the CPU: C++ frontend, batches of up to 64 for one Python process",
            environment="pytriton",
            variables=_PORT_VARIABLES,
        ),
    )
}
