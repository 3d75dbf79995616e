"""Who a node of a Seldon graph is: the names that metrics, request paths and feedback know it by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

NOT_IMPLEMENTED: Final = "NOT_IMPLEMENTED"


@dataclass(frozen=True, slots=True)
class UnitIdentity:
    """The names of one node; empty where the deployment gives none."""

    unit_id: str = ""
    """Name of the node in its graph (``PREDICTIVE_UNIT_ID``)."""
    image: str = ""
    """Image of its container with its version behind the last colon (``PREDICTIVE_UNIT_IMAGE``)."""
    predictor_id: str = ""
    """Name of the predictor (``PREDICTOR_ID``)."""
    predictor_version: str = ""
    """Label ``version`` of the predictor (``PREDICTOR_LABELS``)."""
    deployment_id: str = ""
    """Name of the deployment (``SELDON_DEPLOYMENT_ID``)."""

    @property
    def image_name(self) -> str:
        """The image without its version."""
        return self._split()[0]

    @property
    def image_version(self) -> str:
        """What follows the image's last colon."""
        return self._split()[1]

    def _split(self) -> tuple[str, str]:
        name, colon, version = self.image.rpartition(":")
        return (name, version) if colon else (version, "")

    def labels(self) -> dict[str, str]:
        """The labels that every metric of the node carries, with the older duplicates that dashboards use."""
        image = self.image or f"{NOT_IMPLEMENTED}:{NOT_IMPLEMENTED}"
        name, _, version = image.rpartition(":")
        deployment = self.deployment_id or NOT_IMPLEMENTED
        return {
            "deployment_name": deployment,
            "predictor_name": self.predictor_id or NOT_IMPLEMENTED,
            "predictor_version": self.predictor_version or NOT_IMPLEMENTED,
            "model_name": self.unit_id or NOT_IMPLEMENTED,
            "model_image": name,
            "model_version": version,
            "seldon_deployment_name": deployment,
            "image_name": name,
            "image_version": version,
        }
