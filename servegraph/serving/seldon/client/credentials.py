"""Who is called and who calls: certificates and tokens."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from servegraph.serving.seldon.client.errors import SeldonClientException


@dataclass(frozen=True, slots=True)
class SeldonChannelCredentials:
    """Certificates of an encrypted connection; giving them makes a client use TLS."""

    verify: bool = True
    """Whether the server's certificate is checked. gRPC always checks it."""
    root_certificates_file: str | None = None
    """PEM file of the authorities that are trusted; the system's when not given."""
    private_key_file: str | None = None
    """PEM file of the client's own key."""
    certificate_chain_file: str | None = None
    """PEM file of the client's own certificate, with those above it."""

    def __post_init__(self) -> None:
        if self.private_key_file and not self.certificate_chain_file:
            raise SeldonClientException("private_key_file needs certificate_chain_file beside it")

    def ssl_context(self) -> ssl.SSLContext:
        """The TLS context of HTTPS.

        Raises:
            SeldonClientException: a file is missing or holds no certificate.
        """
        try:
            context = ssl.create_default_context(cafile=self.root_certificates_file)
            if self.certificate_chain_file:
                context.load_cert_chain(self.certificate_chain_file, self.private_key_file)
        except OSError as exc:  # ssl.SSLError is one
            raise SeldonClientException(f"the certificates of {self} cannot be used: {exc}") from exc
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def grpc_credentials(self, grpc: ModuleType) -> Any:
        """The channel credentials of grpcio.

        Raises:
            SeldonClientException: a file is missing, or the check of the server's certificate is to be left out.
        """
        if not self.verify:
            raise SeldonClientException(
                "gRPC checks the server's certificate always: give its authority as root_certificates_file, "
                "or leave verify out"
            )
        files = (self.root_certificates_file, self.private_key_file, self.certificate_chain_file)
        return grpc.ssl_channel_credentials(*(_content(file) for file in files))


@dataclass(frozen=True, slots=True)
class SeldonCallCredentials:
    """A token that every call carries as ``X-Auth-Token``, in a header or in gRPC's metadata."""

    token: str | None = field(default=None, repr=False)


def _content(file: str | None) -> bytes | None:
    if file is None:
        return None
    try:
        return Path(file).read_bytes()
    except OSError as exc:
        raise SeldonClientException(f"{file} cannot be read: {exc.strerror}") from exc
