"""``seldon_core.microservice``: the command, and what scripts around it import.

Components of 0.2 found here what is in ``seldon_core.utils`` today.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, Final

from servegraph.runtimes.seldon.annotations import read_annotations
from servegraph.serving.seldon.compat.flask_utils import (
    ANNOTATION_GRPC_MAX_MSG_SIZE,
    ANNOTATION_REST_TIMEOUT,
    ANNOTATIONS_FILE,
    DEFAULT_ANNOTATION_REST_TIMEOUT,
)
from servegraph.serving.seldon.compat.utils import (
    array_to_grpc_datadef,
    array_to_rest_datadef,
    get_data_from_proto,
    grpc_datadef_to_array,
    rest_datadef_to_array,
)
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.parameters import typed_parameters

PARAMETERS_ENV_NAME: Final = "PREDICTIVE_UNIT_PARAMETERS"
HTTP_SERVICE_PORT_ENV_NAME: Final = "PREDICTIVE_UNIT_HTTP_SERVICE_PORT"
GRPC_SERVICE_PORT_ENV_NAME: Final = "PREDICTIVE_UNIT_GRPC_SERVICE_PORT"
METRICS_SERVICE_PORT_ENV_NAME: Final = "PREDICTIVE_UNIT_METRICS_SERVICE_PORT"
LOG_LEVEL_ENV: Final = "SELDON_LOG_LEVEL"
DEFAULT_LOG_LEVEL: Final = "INFO"
DEFAULT_HTTP_PORT: Final = 9000
DEFAULT_GRPC_PORT: Final = 5000
DEFAULT_METRICS_PORT: Final = 6000
_COMMAND: Final = "servegraph.cli.microservice"


def parse_parameters(parameters: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The arguments for a component's class, from objects with ``name``, ``value`` and ``type``.

    Raises:
        SeldonMicroserviceException: a value is not of its type, or the type is unknown.
    """
    return typed_parameters(parameters)


def load_annotations() -> dict[str, str]:
    """The annotations of the pod by name; none outside of one."""
    return read_annotations()


def main() -> None:
    """Run the command with the arguments of this process, and end it."""
    # The command is above this layer: it is named here, not depended on.
    import_module(_COMMAND).command()


__all__ = [
    "ANNOTATIONS_FILE",
    "ANNOTATION_GRPC_MAX_MSG_SIZE",
    "ANNOTATION_REST_TIMEOUT",
    "DEFAULT_ANNOTATION_REST_TIMEOUT",
    "DEFAULT_GRPC_PORT",
    "DEFAULT_HTTP_PORT",
    "DEFAULT_LOG_LEVEL",
    "DEFAULT_METRICS_PORT",
    "GRPC_SERVICE_PORT_ENV_NAME",
    "HTTP_SERVICE_PORT_ENV_NAME",
    "LOG_LEVEL_ENV",
    "METRICS_SERVICE_PORT_ENV_NAME",
    "PARAMETERS_ENV_NAME",
    "SeldonMicroserviceException",
    "array_to_grpc_datadef",
    "array_to_rest_datadef",
    "get_data_from_proto",
    "grpc_datadef_to_array",
    "load_annotations",
    "main",
    "parse_parameters",
    "rest_datadef_to_array",
]
