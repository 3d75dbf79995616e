"""The servers of this part: one component on both runtimes, and a tree in one process and in one for each node.

Everything is started as a user starts it, with its defaults; only ports are given.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping

from benchmarks.http.servers import SERVEGRAPH, SERVERS, Server
from benchmarks.seldon.payloads import body

MODELS = pathlib.Path(__file__).resolve().parent / "models"
TREE = MODELS / "tree"
SELDON = "seldon"
PREDICTIONS = "/api/v1.0/predictions"

_PORTS = {
    "PREDICTIVE_UNIT_HTTP_SERVICE_PORT": "{http}",
    "PREDICTIVE_UNIT_GRPC_SERVICE_PORT": "{grpc}",
    "PREDICTIVE_UNIT_METRICS_SERVICE_PORT": "{metrics}",
    "PYTHONPATH": "{models}",
}
_IDENTITY = ("IdentityModel", "--service-type", "MODEL")

SIDES: dict[str, Server] = {
    SERVEGRAPH: Server(
        "servegraph-microservice",
        ("{bin}/servegraph", "microservice", *_IDENTITY),
        "servegraph microservice IdentityModel --service-type MODEL",
        variables=_PORTS,
        path=PREDICTIONS,
        models=MODELS,
    ),
    SELDON: Server(
        "seldon-microservice",
        ("{bin}/seldon-core-microservice", *_IDENTITY),
        "seldon-core-microservice IdentityModel --service-type MODEL, of seldon-core 1.18.2 on Python 3.9",
        environment=SERVERS[SELDON].environment,
        variables=_PORTS,
        path=PREDICTIONS,
        models=MODELS,
        ends_on_sigterm=False,
    ),
}

NODES: Mapping[str, tuple[str, str, str]] = {
    "mean": ("tree_nodes.Mean", "COMBINER", "[]"),
    "scale": ("tree_nodes.Scale", "TRANSFORMER", "[]"),
    "behind": ("tree_nodes.Sums", "MODEL", "[]"),
    "pick": ("tree_nodes.Pick", "ROUTER", "[]"),
    "first": ("tree_nodes.Sums", "MODEL", "[]"),
    # Doubled braces: these are no placeholders.
    "second": ("tree_nodes.Sums", "MODEL", '[{{"name": "add", "value": "1.5", "type": "FLOAT"}}]'),
}
"""The nodes of the tree, each with its class, its type and its parameters."""


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """Where the nodes of the tree run."""

    title: str
    """What the table calls it."""
    remote: bool
    """Whether each node is a process of its own, called over REST."""
    pinned: bool = True
    """Whether they share the core of the server; otherwise they may also use that of the load."""


TREE_IN_PROCESS = "tree"
TREE_OVER_REST = "tree-rest"
TREE_OVER_REST_WIDE = "tree-rest-both-cores"
LAYOUTS: dict[str, Layout] = {
    TREE_IN_PROCESS: Layout("in process", remote=False),
    TREE_OVER_REST: Layout("over REST, all on the server's core", remote=True),
    TREE_OVER_REST_WIDE: Layout("over REST, on both cores", remote=True, pinned=False),
}


def node_server(node: str, *, pinned: bool) -> Server:
    """The server of one node of the tree."""
    component, kind, parameters = NODES[node]
    command = ("{bin}/servegraph", "microservice", component, "--service-type", kind, "--parameters", parameters)
    return Server(f"tree-node-{node}", command, "", variables=_PORTS, models=TREE, pinned=pinned)


def tree_server(addresses: Mapping[str, str], *, pinned: bool) -> Server:
    """The server of the tree.

    Args:
        addresses: for each node that runs elsewhere where that is.
        pinned: whether it is held to the core of the server.
    """
    elsewhere = [part for node, address in addresses.items() for part in ("--component", f"{node}={address}")]
    return Server(
        "tree",
        (
            *("{bin}/servegraph", "serve", "{models}/deployment.yaml", "--http-port", "{http}"),
            *("--set", "grpc_port={grpc}", *elsewhere),
        ),
        "servegraph serve deployment.yaml",
        path=PREDICTIONS,
        body=body(False),
        models=TREE,
        pinned=pinned,
    )
