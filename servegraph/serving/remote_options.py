"""What remote calls may be told, and where they may go."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from servegraph.errors import GraphError, UnprocessableError

_SAFE_IN_PATH: Final = "/:@!$&'()*+,;=~-._%"
_FIELD_VALUE: Final = re.compile(r"[\t\x20-\x7e]*\Z")
_FIELD_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
IDEMPOTENT: Final = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """How remote calls are made."""

    retries: int = 6
    """How often a failed call is repeated, where that is safe; see `RemoteStep`."""
    backoff_factor: float = 0.1
    """Seconds before the first repetition; doubled for each further one."""
    backoff_max_s: float = 120.0
    """The longest wait between two tries, in seconds."""
    timeout_s: float | None = 30.0
    """Seconds one try may take; the request's deadline counts as well."""
    max_in_flight: int = 8
    """How many calls may be under way at once; more wait."""
    max_response_bytes: int = 64 * 2**20
    """The largest answer that is read, in bytes."""
    idempotent: bool = False
    """Whether a call may safely be made twice whatever its method."""
    pass_client_errors: bool | None = None
    """Whether a 4xx of the remote (about the request: 400, 404, 409, 413, 415, 422) is the caller's own; when not
    said it is for a route, whose request is the caller's, and not for a step, whose request is ours."""
    verify: str | None = None
    """A file of CA certificates to trust instead of the usual ones. TLS is always verified."""
    allowed_origins: frozenset[str] = field(default_factory=frozenset)
    """Further origins (``https://host[:port]``) that ``url_expression`` may lead to."""

    def __post_init__(self) -> None:
        for name in ("timeout_s", "max_in_flight", "max_response_bytes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise GraphError(f"{name.removesuffix('_s')} must be above 0, not {value!r}")
        for name in ("retries", "backoff_factor", "backoff_max_s"):
            if not getattr(self, name) >= 0:
                raise GraphError(f"{name} cannot be negative: {getattr(self, name)!r}")


def read_options(given: Mapping[str, Any], verify: Any, allowed_origins: Iterable[str] | str) -> RemoteOptions:
    """The options that a step's arguments mean; ``None`` is the default.

    Raises:
        GraphError: a value is out of range, or TLS verification was switched off.
    """
    if verify is False:
        raise GraphError("verify=False: TLS is always verified; give the path of a file of CA certificates")
    if verify is not None and verify is not True and not isinstance(verify, str):
        raise GraphError(f"verify must be the path of a file of CA certificates, not {type(verify).__name__}")
    origins = [allowed_origins] if isinstance(allowed_origins, str) else allowed_origins
    return RemoteOptions(
        verify=verify if isinstance(verify, str) else None,
        allowed_origins=frozenset(origin_of(read_base(o)) for o in origins),
        **{k: v for k, v in given.items() if v is not None},
    )


# -- where --------------------------------------------------------------------------------------------------------


def read_base(url: Any) -> str:
    """A base URL from a spec, checked.

    Raises:
        GraphError: it is no absolute http(s) URL, or it holds a password.
    """
    if not isinstance(url, str) or not re.match(r"https?://", url, re.IGNORECASE):
        raise GraphError(f"url is {url!r}; it must begin with http:// or https://")
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port >= 0
    except ValueError as exc:
        raise GraphError(f"url {url!r} cannot be read: {exc}") from exc
    if not parts.hostname or not port_is_fine:
        raise GraphError(f"url {url!r} names no host")
    if parts.username is not None or parts.password is not None:
        raise GraphError("url holds a user name or password: give an Authorization header instead")
    return url


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL, each as they are compared."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    port = parts.port or (443 if scheme == "https" else 80)
    return f"{scheme}://{(parts.hostname or '').lower()}:{port}"


def joined(base: str, path: str) -> str:
    """A base URL with a path below it; a query of the base stays.

    Raises:
        UnprocessableError: the path leads out of the base.
    """
    if not path.strip("/"):
        return base
    # An event's path may be anything: it stays below the base, and is a path.
    if any(part in (".", "..") for part in re.split(r"[/\\]", unquote(unquote(path)))):
        raise UnprocessableError("the path of a remote call cannot hold '.' or '..'")
    head, mark, query = base.partition("?")
    return f"{head.rstrip('/')}/{quote(path.strip('/'), safe=_SAFE_IN_PATH)}{mark}{query}"


def checked_target(value: Any, base: str | None, allowed: frozenset[str]) -> str:
    """The URL that an expression gave: absolute and of an allowed origin, or a path on the base's origin.

    Raises:
        UnprocessableError: it is neither.
    """
    if not isinstance(value, str):
        raise UnprocessableError(f"url_expression gave {type(value).__name__} instead of a URL")
    if base is not None and value.startswith("/") and not value.startswith("//") and "\\" not in value:
        return origin_of(base) + quote(value, safe=_SAFE_IN_PATH + "?")
    try:
        url = read_base(value)
        origin = origin_of(url)
    except (GraphError, ValueError):
        raise UnprocessableError("url_expression gave something that is no http(s) URL") from None
    if "\\" in url or any(ord(c) <= 32 or ord(c) > 126 for c in url) or origin not in allowed:
        raise UnprocessableError("url_expression led to an origin that is not in allowed_origins")
    return url


def checked_headers(headers: Any, what: str) -> dict[str, str]:
    """Header fields with plain names and values.

    Raises:
        UnprocessableError: they are no mapping, or a value holds a line break or another control character.
    """
    if not isinstance(headers, Mapping):
        raise UnprocessableError(f"{what} gave {type(headers).__name__} instead of a mapping of header fields")
    checked = {str(k): str(v) for k, v in headers.items()}
    for name, value in checked.items():
        if not _FIELD_NAME.match(name) or not _FIELD_VALUE.match(value):
            raise UnprocessableError(f"{what}: header {name[:40]!r} holds a character that a header cannot")
    return checked


def printable(value: str) -> str:
    """A text that may stand in a header field."""
    return value if _FIELD_VALUE.match(value) else quote(value)
