"""``seldon_core.metadata``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from servegraph.serving.seldon import metadata
from servegraph.serving.seldon.metadata import SeldonInvalidMetadataError
from servegraph.settings import environment

MODEL_IMAGE: str | None = environment().get("PREDICTIVE_UNIT_IMAGE")
"""Looked at by every call, so that tests can put another one here."""


def validate_model_metadata(data: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata with defaults for what it lacks, checked.

    Raises:
        SeldonInvalidMetadataError: a field is unknown or not of its form.
    """
    return metadata.validate_model_metadata(data, MODEL_IMAGE or "")


__all__ = ["MODEL_IMAGE", "SeldonInvalidMetadataError", "validate_model_metadata"]
