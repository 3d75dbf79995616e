"""The start of a node: what its code finds in the environment meanwhile, and how its failures are told."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from servegraph.errors import GraphError, ModelLoadError, ServegraphError, users_part
from servegraph.serving.seldon.environment import NodeEnvironment, not_set
from servegraph.serving.seldon.unit_options import UnitOptions

logger = logging.getLogger("servegraph.serving.seldon")

_TYPES: Final[Mapping[type, str]] = {bool: "BOOL", int: "INT", float: "DOUBLE"}


class NodeStart:
    """What there is to do around the code of a node while it is imported, made and loaded.

    Args:
        node: the node's name.
        options: the node's place and its variables.
        parameters: the arguments of its class, as a deployment or a mapping has them.
    """

    def __init__(self, node: str, options: UnitOptions, parameters: Any) -> None:
        self.node = node
        told = operators_variables(node, options, parameters)
        shown = f"{options.predictor}/{node}" if options.predictor else node
        self._environment = NodeEnvironment(shown, {**told, **options.env}, set(told) - set(options.env))
        unknown = not_set(name for name in options.env_elsewhere if name not in options.env)
        if unknown:
            logger.warning(
                "node %r: the values of %s are in the cluster, and nothing here knows them: set what the node needs in "
                "the environment of the server", node, ", ".join(unknown),
            )  # fmt: skip

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Have the node's variables in the environment, and its name at the head of what fails.

        Raises:
            GraphError: the node is not what it should be.
            ModelLoadError: its own code raised; the cause is chained.
        """
        head = f"node {self.node!r}"
        try:
            with self._environment.given():
                yield
        except ServegraphError as exc:
            if not exc.message.startswith(head):
                exc.message = f"{head}: {exc.message}"
            exc.step = self.node
            raise
        except Exception as exc:
            failure = ModelLoadError if users_part(exc.__traceback__) is not None else GraphError
            raise failure(f"{head}: {exc}", step=self.node) from exc

    def close(self) -> None:
        """Take the node's variables out of the environment."""
        self._environment.put_back()


def operators_variables(node: str, options: UnitOptions, parameters: Any) -> dict[str, str]:
    """What Seldon's operator writes into the environment of a node's container; nothing outside of a deployment."""
    if not options.deployment:
        return {}
    found = {
        "PREDICTIVE_UNIT_ID": node,
        "PREDICTIVE_UNIT_IMAGE": options.image,
        "PREDICTIVE_UNIT_PARAMETERS": json.dumps(_as_list(parameters)),
        "PREDICTOR_ID": options.predictor,
        "PREDICTOR_LABELS": json.dumps({"version": options.version}),
        "SELDON_DEPLOYMENT_ID": options.deployment,
        "SELDON_EXECUTOR_ENABLED": "true",
    }
    return {name: value for name, value in found.items() if value}


def _as_list(parameters: Any) -> list[Any]:
    """Parameters in the form of a deployment; what has none is left out."""
    if isinstance(parameters, Mapping):
        plain = {n: v for n, v in parameters.items() if isinstance(v, (str, bool, int, float))}
        return [{"name": n, "value": str(v), "type": _TYPES.get(type(v), "STRING")} for n, v in plain.items()]
    return list(parameters) if isinstance(parameters, Sequence) else []
