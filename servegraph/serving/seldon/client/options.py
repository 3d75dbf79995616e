"""All that a client and its calls can be told, and how the one overrides the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypedDict

from servegraph.errors import closest
from servegraph.serving.seldon.client.credentials import SeldonCallCredentials, SeldonChannelCredentials
from servegraph.serving.seldon.client.errors import SeldonClientException

Operation = Literal["predict", "feedback", "explain"]

METHODS: Final = ("predict", "transform-input", "transform-output", "route", "aggregate")
"""What a microservice can be asked for; feedback has a call of its own."""
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "gateway": ("ambassador", "istio", "seldon"),
    "transport": ("rest", "grpc"),
    "payload_type": ("tensor", "ndarray", "tftensor"),
    "client_return_type": ("dict", "proto"),
    "method": METHODS,
}


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Where calls go and how; the client's own, or with what one call overrides."""

    gateway: str = "ambassador"
    """What stands in front of the deployment: ``ambassador``, ``istio``, or ``seldon`` for nothing at all."""
    transport: str = "rest"
    """``rest`` or ``grpc``."""
    namespace: str | None = None
    """Kubernetes namespace of the deployment."""
    deployment_name: str | None = None
    """Name of the deployment."""
    payload_type: str = "tensor"
    """How arrays of numbers are sent: ``tensor``, ``ndarray`` or ``tftensor``. Others always go as ``ndarray``."""
    gateway_endpoint: str = "localhost:8003"
    """``host:port`` of the gateway."""
    microservice_endpoint: str = "localhost:5000"
    """``host:port`` of a single component."""
    gateway_prefix: str | None = None
    """Path of the deployment at the gateway, in place of ``/seldon/namespace/deployment``."""
    http_path: str | None = None
    """Path below the deployment's, in place of ``/api/v1.0/predictions``."""
    predictor: str | None = None
    """Predictor whose explainer is asked."""
    method: str = "predict"
    """What a microservice is asked for."""
    headers: Mapping[str, str] | None = None
    """Further header fields, or metadata of gRPC."""
    ssl: bool | None = None
    """Whether the connection is encrypted; when not given it is where there are credentials of either kind."""
    client_return_type: str | None = None
    """``dict`` or ``proto``: the type of requests and answers in results. When not given, ``dict`` for deployments
    and ``proto`` for microservices."""
    timeout_s: float = 60.0
    """Seconds that one call may take."""
    grpc_max_send_message_length: int = 4 * 1024 * 1024
    """Largest request of gRPC in bytes."""
    grpc_max_receive_message_length: int = 4 * 1024 * 1024
    """Largest answer of gRPC in bytes."""
    max_connections: int = 100
    """Most connections of HTTP at a time; they are kept open and used again."""
    channel_credentials: SeldonChannelCredentials | None = None
    """Certificates."""
    call_credentials: SeldonCallCredentials | None = None
    """A token."""
    debug: bool = False
    """Whether each call is logged as INFO, and not as DEBUG."""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices and not (value is None and name == "client_return_type"):
                raise SeldonClientException(f"{name}={value!r} is unknown; {closest(str(value), choices)}")
        if not self.timeout_s > 0:
            raise SeldonClientException(f"timeout_s={self.timeout_s!r} must be above 0")

    @property
    def encrypted(self) -> bool:
        """Whether TLS is used: the same rule for every call and both transports."""
        if self.ssl is not None:
            return self.ssl
        return self.channel_credentials is not None or self.call_credentials is not None


@dataclass(frozen=True, slots=True)
class Payload:
    """What a call sends: the first that is given of ``raw_data`` and the kinds that follow, down to ``data``."""

    raw_data: Mapping[str, Any] | None = None
    """A whole message as a JSON object; sent as it is."""
    bin_data: bytes | bytearray | None = None
    """Bytes."""
    str_data: str | None = None
    """Text."""
    json_data: Any = None
    """Any JSON value."""
    custom_data: Any = None
    """A ``google.protobuf.Any``; with gRPC alone."""
    data: Any = None
    """An array, a nested list or a data frame."""
    shape: Iterable[int] = (1, 1)
    """Shape of the random numbers that are sent when nothing else is given."""
    names: Iterable[str] | None = None
    """Names of the columns; those of a data frame are taken from it."""
    meta: Mapping[str, Any] | None = None
    """Tags of the request."""
    datas: Iterable[Any] | None = None
    """Arrays, texts or bytes to aggregate."""
    ndatas: int | None = None
    """How many random arrays to aggregate when there are no ``datas``."""


class CallArguments(TypedDict, total=False):
    """What one call may override; the meaning of each is in `ClientOptions`."""

    gateway: str | None
    transport: str | None
    namespace: str | None
    deployment_name: str | None
    payload_type: str | None
    gateway_endpoint: str | None
    microservice_endpoint: str | None
    gateway_prefix: str | None
    http_path: str | None
    predictor: str | None
    method: str | None
    headers: Mapping[str, str] | None
    ssl: bool | None
    client_return_type: str | None
    timeout_s: float | None


class ClientArguments(CallArguments, total=False):
    """What a client may be told; the meaning of each is in `ClientOptions`."""

    grpc_max_send_message_length: int
    grpc_max_receive_message_length: int
    max_connections: int
    channel_credentials: SeldonChannelCredentials | None
    call_credentials: SeldonCallCredentials | None
    debug: bool


class PayloadArguments(CallArguments, total=False):
    """What a call with a payload may be told; the meaning of each is in `Payload`."""

    raw_data: Mapping[str, Any] | None
    bin_data: bytes | bytearray | None
    str_data: str | None
    json_data: Any
    custom_data: Any
    data: Any
    shape: Iterable[int]
    names: Iterable[str] | None
    meta: Mapping[str, Any] | None
    datas: Iterable[Any] | None
    ndatas: int | None


def read_arguments(
    call: str, defaults: ClientOptions, given: Mapping[str, Any], accepted: Any
) -> tuple[ClientOptions, Payload]:
    """The options and the payload of a call; an argument that is ``None`` counts as not given.

    Raises:
        TypeError: an argument is none of those the call takes; the message has the nearest one.
        SeldonClientException: an argument has a value that it cannot have.
    """
    valid: frozenset[str] = accepted.__optional_keys__
    for name in given:
        if name not in valid:
            raise TypeError(f"{call}() got an unexpected argument {name!r}; {closest(name, valid)}")
    present = {name: value for name, value in given.items() if value is not None}
    of_payload = {name: present.pop(name) for name in Payload.__dataclass_fields__ if name in present}
    return dataclasses.replace(defaults, **present), Payload(**of_payload)
