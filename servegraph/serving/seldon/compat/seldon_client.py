"""``seldon_core.seldon_client``."""

from __future__ import annotations

from servegraph.serving.seldon.client import (
    SeldonCallCredentials,
    SeldonChannelCredentials,
    SeldonClient,
    SeldonClientCombine,
    SeldonClientException,
    SeldonClientFeedback,
    SeldonClientPrediction,
)

__all__ = [
    "SeldonCallCredentials",
    "SeldonChannelCredentials",
    "SeldonClient",
    "SeldonClientCombine",
    "SeldonClientException",
    "SeldonClientFeedback",
    "SeldonClientPrediction",
]
