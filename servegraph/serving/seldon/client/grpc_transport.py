"""Calls over gRPC, on channels that are kept."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Final

from servegraph.importing import import_extra
from servegraph.serving.seldon.client.answer import Answer
from servegraph.serving.seldon.client.credentials import SeldonChannelCredentials
from servegraph.serving.seldon.client.options import ClientOptions
from servegraph.serving.seldon.client.rest_transport import TOKEN_HEADER
from servegraph.serving.seldon.client.urls import host_and_port, is_encrypted

logger = logging.getLogger("servegraph.seldon.client")

_RETRYABLE: Final = frozenset(
    ("UNKNOWN", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED", "INTERNAL", "UNAVAILABLE", "CANCELLED")
)


class GrpcTransport:
    """Calls methods with the bytes of messages; safe to use from several threads.

    Args:
        options: the client's own.
    """

    def __init__(self, options: ClientOptions) -> None:
        self._options = options
        self._grpc = import_extra("grpc", feature="SeldonClient with transport='grpc'", extra="seldon")
        self._lock = threading.Lock()
        self._channels: dict[tuple[str, bool], Any] = {}
        self._methods: dict[tuple[str, bool, str], Any] = {}

    def call(self, endpoint: str, method: str, request: bytes, options: ClientOptions) -> Answer:
        """The outcome of one call; its body is the bytes of the answer's message.

        Args:
            endpoint: ``host:port``.
            method: such as ``/seldon.protos.Model/Predict``.
            request: the bytes of the message to send.
            options: of this call.

        Raises:
            SeldonClientException: the certificates cannot be used.
        """
        started = time.monotonic()
        function = self._function(endpoint, method, is_encrypted(endpoint, options))
        try:
            answer = Answer(True, "", "OK", function(request, timeout=options.timeout_s, metadata=_metadata(options)))
        except self._grpc.RpcError as exc:
            code = exc.code().name
            answer = Answer(False, f"{code}:{exc.details()}", code, None, code in _RETRYABLE)
        level = logging.INFO if self._options.debug else logging.DEBUG
        logger.log(level, "%s at %s: %s in %.3f s", method, endpoint, answer.msg or "OK", time.monotonic() - started)
        return answer

    def close(self) -> None:
        """Close the channels."""
        with self._lock:
            channels, self._channels, self._methods = self._channels, {}, {}
        for channel in channels.values():
            channel.close()

    def _function(self, endpoint: str, method: str, encrypted: bool) -> Any:
        target = host_and_port(endpoint)
        with self._lock:
            function = self._methods.get((target, encrypted, method))
            if function is None:
                channel = self._channels.get((target, encrypted))
                if channel is None:
                    channel = self._channels[target, encrypted] = self._channel(target, encrypted)
                function = self._methods[target, encrypted, method] = channel.unary_unary(method)
        return function

    def _channel(self, target: str, encrypted: bool) -> Any:
        limits = [
            ("grpc.max_send_message_length", self._options.grpc_max_send_message_length),
            ("grpc.max_receive_message_length", self._options.grpc_max_receive_message_length),
        ]
        if not encrypted:
            return self._grpc.insecure_channel(target, options=limits)
        credentials = self._options.channel_credentials or SeldonChannelCredentials()
        return self._grpc.secure_channel(target, credentials.grpc_credentials(self._grpc), options=limits)


def _metadata(options: ClientOptions) -> list[tuple[str, str]]:
    """What gateways find the deployment by, the caller's own fields, and the token."""
    fields = {name.lower(): value for name, value in (options.headers or {}).items()}
    if options.deployment_name and options.gateway != "seldon":
        fields["seldon"] = options.deployment_name
        if options.namespace:
            fields["namespace"] = options.namespace
    if options.call_credentials is not None and options.call_credentials.token:
        fields[TOKEN_HEADER.lower()] = options.call_credentials.token
    return list(fields.items())
