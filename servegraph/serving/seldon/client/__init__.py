"""A small client for Seldon deployments and components, over REST and gRPC."""

from __future__ import annotations

from servegraph.serving.seldon.client.client import SeldonClient
from servegraph.serving.seldon.client.credentials import SeldonCallCredentials, SeldonChannelCredentials
from servegraph.serving.seldon.client.errors import SeldonClientException
from servegraph.serving.seldon.client.options import ClientOptions, Payload
from servegraph.serving.seldon.client.results import (
    SeldonClientCombine,
    SeldonClientFeedback,
    SeldonClientPrediction,
)

__all__ = [
    "ClientOptions",
    "Payload",
    "SeldonCallCredentials",
    "SeldonChannelCredentials",
    "SeldonClient",
    "SeldonClientCombine",
    "SeldonClientException",
    "SeldonClientFeedback",
    "SeldonClientPrediction",
]
