"""``seldon_core.env_utils``: the names that the deployment gives the component."""

from __future__ import annotations

from typing import Final

from servegraph.serving.seldon.environment import read_environment
from servegraph.serving.seldon.identity import NOT_IMPLEMENTED
from servegraph.settings import environment

ENV_MODEL_NAME: Final = "PREDICTIVE_UNIT_ID"
ENV_MODEL_IMAGE: Final = "PREDICTIVE_UNIT_IMAGE"
ENV_SELDON_DEPLOYMENT_NAME: Final = "SELDON_DEPLOYMENT_ID"
ENV_PREDICTOR_NAME: Final = "PREDICTOR_ID"
ENV_PREDICTOR_LABELS: Final = "PREDICTOR_LABELS"
NONIMPLEMENTED_MSG: Final = NOT_IMPLEMENTED
NONIMPLEMENTED_IMAGE_MSG: Final = f"{NOT_IMPLEMENTED}:{NOT_IMPLEMENTED}"


def get_predictor_version(default_val: str = NONIMPLEMENTED_MSG) -> str:
    """The label ``version`` of the predictor."""
    return read_environment().identity.predictor_version or default_val


def get_predictor_name(default_val: str = NONIMPLEMENTED_MSG) -> str:
    """Name of the predictor."""
    return environment().get(ENV_PREDICTOR_NAME, default_val)


def get_deployment_name(default_val: str = NONIMPLEMENTED_MSG) -> str:
    """Name of the deployment."""
    return environment().get(ENV_SELDON_DEPLOYMENT_NAME, default_val)


def get_model_name(default_val: str = NONIMPLEMENTED_MSG) -> str:
    """Name of the node."""
    return environment().get(ENV_MODEL_NAME, default_val)


def get_image_name(default_val: str = NONIMPLEMENTED_IMAGE_MSG) -> str:
    """Image of the node's container, with its version."""
    return environment().get(ENV_MODEL_IMAGE, default_val)


__all__ = [
    "ENV_MODEL_IMAGE",
    "ENV_MODEL_NAME",
    "ENV_PREDICTOR_LABELS",
    "ENV_PREDICTOR_NAME",
    "ENV_SELDON_DEPLOYMENT_NAME",
    "NONIMPLEMENTED_IMAGE_MSG",
    "NONIMPLEMENTED_MSG",
    "get_deployment_name",
    "get_image_name",
    "get_model_name",
    "get_predictor_name",
    "get_predictor_version",
]
