"""Stream addresses: their scheme, and the form of them that is fit for a message or a log."""

from __future__ import annotations

import re

SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_HIDDEN = "***"
_NO_USER = frozenset({"file", "dummy"})  # schemes in which "@" is an ordinary character
_SHOWN_QUERY = frozenset({"topic"})  # query values that are never secret


def scheme_of(uri: str) -> str | None:
    """The scheme of ``scheme://...`` in lower case, or None where there is none."""
    scheme, mark, _ = uri.partition("://")
    scheme = scheme.lower()
    return scheme if mark and SCHEME.fullmatch(scheme) else None


def redact(uri: str) -> str:
    """The address with user, password and query values replaced by ``***``.

    When the address is malformed (a password with an unescaped ``/`` in it, say) more is hidden, not less.
    """
    if scheme_of(uri) in _NO_USER:
        return uri
    start = uri.index("://") + 3 if "://" in uri else 0
    prefix, rest = uri[:start], uri[start:]
    rest, mark, query = rest.partition("?")
    if "@" in query and not _looks_like_host(re.split(r"[/@]", rest, maxsplit=1)[0]):
        return f"{prefix}{_HIDDEN}"  # the "?" belongs to a password
    host, slash, path = rest.partition("/")
    if "@" in host:
        host = f"{_HIDDEN}@{host.rpartition('@')[2]}"
        rest = f"{host}{slash}{path}"
    elif "@" in path and not _looks_like_host(host):
        rest = f"{_HIDDEN}@{rest.rpartition('@')[2]}"
    rest, fragment, _ = rest.partition("#")
    return f"{prefix}{rest}{'#' + _HIDDEN if fragment else ''}{mark}{_redact_query(query)}"


def _looks_like_host(text: str) -> bool:
    """Whether each of the comma separated parts is a host with, at most, a numeric port."""
    return all(re.fullmatch(r"(\[[0-9a-fA-F:.%]*\]|[^:\[\]]*)(:\d*)?", part) for part in text.split(","))


def _redact_query(query: str) -> str:
    pairs = []
    for pair in query.split("&") if query else []:
        name, equals, _ = pair.partition("=")
        if not equals:
            pairs.append(_HIDDEN)  # a bare word may be a token
        else:
            pairs.append(pair if name in _SHOWN_QUERY else f"{name}={_HIDDEN}")
    return "&".join(pairs)
