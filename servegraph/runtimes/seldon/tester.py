"""Sends random requests that keep a contract, and checks what comes back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from servegraph.errors import closest
from servegraph.serving.seldon.client import SeldonClient, SeldonClientException
from servegraph.serving.seldon.client.results import Result
from servegraph.serving.seldon.contract import Contract, SeldonTesterException
from servegraph.serving.seldon.contract_batches import make_batch
from servegraph.serving.seldon.contract_checks import check_answer

__all__ = ["Exchange", "SeldonTesterException", "SeldonTesterOptions", "exchanges"]

ENDPOINTS: Final = ("predict", "send-feedback", "transform-input")
_REWARD: Final = 1.0


@dataclass(frozen=True, slots=True)
class SeldonTesterOptions:
    """What is tested, and how."""

    address: str
    """``host:port`` of the component or of the gateway."""
    endpoint: str = "predict"
    """``predict``, ``send-feedback`` or ``transform-input``."""
    rows: int = 1
    """Rows of each request."""
    requests: int = 1
    """How many requests are sent."""
    transport: Literal["rest", "grpc"] = "rest"
    """How."""
    payload_type: Literal["ndarray", "tensor"] = "ndarray"
    """How arrays of numbers are sent."""
    seed: int | None = None
    """The same seed makes the same requests."""
    gateway: str | None = None
    """The kind of gateway, when a deployment is tested and not a single component."""
    deployment: str | None = None
    """The deployment behind the gateway."""
    namespace: str | None = None
    """The deployment's namespace."""
    gateway_prefix: str | None = None
    """The deployment's path at the gateway, where it has one of its own."""
    ssl: bool = False
    """Whether the connection is encrypted."""
    check_names: bool = True
    """Whether the names of answers are checked."""
    timeout_s: float = 60.0
    """Seconds that one request may take."""

    def __post_init__(self) -> None:
        if self.endpoint not in ENDPOINTS:
            raise SeldonTesterException(f"endpoint={self.endpoint!r} is unknown; {closest(self.endpoint, ENDPOINTS)}")
        if self.rows < 1 or self.requests < 1:
            raise SeldonTesterException("at least one row and one request are needed")
        if self.gateway is not None and self.endpoint == "transform-input":
            raise SeldonTesterException("a gateway has no transform-input: test the component itself")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and what is wrong with its answer."""

    number: int
    """Of the request, from 1."""
    request: Any
    """The JSON object that was sent."""
    response: Any
    """The JSON object that came back; ``None`` where none did."""
    findings: list[str]
    """What is wrong; empty when all is well."""


def exchanges(contract: Contract, options: SeldonTesterOptions) -> Iterator[Exchange]:
    """Send the requests one after the other, and tell of each how it went.

    Raises:
        SeldonClientException: no request can be made as it is asked for.
        MissingExtraError: the transport needs a package that is not installed.
    """
    random = np.random.default_rng(options.seed)
    with SeldonClient(
        gateway=options.gateway or "seldon",
        gateway_endpoint=options.address,
        microservice_endpoint=options.address,
        deployment_name=options.deployment,
        namespace=options.namespace,
        gateway_prefix=options.gateway_prefix,
        transport=options.transport,
        payload_type=options.payload_type,
        client_return_type="dict",
        ssl=options.ssl,
        timeout_s=options.timeout_s,
    ) as client:
        for number in range(1, options.requests + 1):
            yield _exchange(client, contract, options, number, random)


def _exchange(
    client: SeldonClient, contract: Contract, options: SeldonTesterOptions, number: int, random: np.random.Generator
) -> Exchange:
    batch = make_batch(contract, options.rows, random)
    if options.endpoint == "send-feedback":
        result = _feedback(client, contract, options, batch, random)
        return Exchange(number, result.request, result.response, _failure(result))
    names = contract.feature_names
    result = (
        client.microservice(data=batch, names=names, method=options.endpoint)
        if options.gateway is None
        else client.predict(data=batch, names=names)
    )
    findings = _failure(result) or _broken(contract, result, options)
    return Exchange(number, result.request, result.response, findings)


def _feedback(
    client: SeldonClient, contract: Contract, options: SeldonTesterOptions, batch: Any, random: np.random.Generator
) -> Result:
    """The result of feedback on a prediction that is made first, so that it finds the way that the request went."""
    names = contract.feature_names
    truth = None
    if contract.targets:
        right = make_batch(Contract(contract.targets), options.rows, random)
        truth = {"data": {"names": contract.target_names, "ndarray": right.tolist()}}
    if options.gateway is None:
        request = {"data": {"names": names, "ndarray": batch.tolist()}}
        return client.microservice_feedback(request, None, truth, _REWARD)
    prediction = client.predict(data=batch, names=names)
    if not prediction.success:
        return prediction
    return client.feedback(prediction.request, prediction.response, truth, _REWARD)


def _failure(result: Result) -> list[str]:
    if result.success:
        return []
    status = result.response.get("status") if isinstance(result.response, dict) else None
    info = status.get("info") if isinstance(status, dict) else None
    return [f"{result.msg}: {info}" if info else result.msg]


def _broken(contract: Contract, result: Result, options: SeldonTesterOptions) -> list[str]:
    try:
        answer = result.message()
    except SeldonClientException as exc:
        return [str(exc)]
    return check_answer(contract, answer, options.rows, names=options.check_names)
