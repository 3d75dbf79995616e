"""Media types (RFC 9110, 8.3): parameters, case, ``+json`` suffixes and charsets, parsed once and kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from encodings import normalize_encoding
from encodings.aliases import aliases
from functools import lru_cache

from servegraph.errors import UnsupportedMediaTypeError

# Encodings of Python's own that no media type means, some of which take quadratic time, and one that is read
# differently by everybody.
_NO_CHARSETS = frozenset({"idna", "punycode", "raw_unicode_escape", "undefined", "unicode_escape", "utf_7"})
_CHARSETS = frozenset(aliases.values()) | {"koi8_u", "utf_8_sig"}


@dataclass(frozen=True, slots=True)
class MediaType:
    """A parsed ``Content-Type``; names are lower case, quoted parameter values are unquoted."""

    type: str = ""
    subtype: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    is_json: bool = False
    """``application/json``, ``text/json``, ``json`` alone, or any ``+json`` subtype."""

    @property
    def essence(self) -> str:
        """``type/subtype`` without parameters; empty when there was no media type."""
        return f"{self.type}/{self.subtype}" if self.subtype else self.type

    @property
    def charset(self) -> str | None:
        """The charset as the sender wrote it, lower case, or ``None``."""
        value = self.parameters.get("charset")
        return value.lower() if value else None

    def decode(self, data: bytes) -> str:
        """The text of a body in this charset (UTF-8 where none is named).

        Raises:
            UnsupportedMediaTypeError: the charset is unknown or the bytes are not in it.
        """
        name = self.charset or "utf-8"
        try:
            return data.decode(_known(name))
        except LookupError as exc:
            raise UnsupportedMediaTypeError(f"charset {name[:80]!r} is unknown") from exc
        except UnicodeDecodeError as exc:
            raise UnsupportedMediaTypeError(f"the body is not {name}: {exc.reason} at byte {exc.start}") from exc


def _known(charset: str) -> str:
    """Python's name of a charset; `codecs.lookup` would keep each name that it is asked for."""
    name = normalize_encoding(charset[:80])
    name = aliases.get(name, name)
    if name in _NO_CHARSETS or name not in _CHARSETS:
        raise LookupError(charset)
    return name


@lru_cache(maxsize=512)
def parse_media_type(value: str) -> MediaType:
    """The media type in a header value; an empty or malformed value gives an empty `MediaType`."""
    head, _, tail = value.partition(";")
    essence = head.strip().lower()
    if essence == "json":  # what MLRun clients send
        return MediaType("application", "json", {}, True)
    kind, slash, subtype = essence.partition("/")
    if not slash or not kind or not subtype:
        return MediaType()
    is_json = subtype == "json" or subtype.endswith("+json")
    return MediaType(kind, subtype, _parameters(tail), is_json)


def _parameters(text: str) -> dict[str, str]:
    """``a=b; c="d;e"`` as a dict; what cannot be read is left out, as RFC 9110 lets a recipient do."""
    found: dict[str, str] = {}
    while text:
        name, equals, rest = text.partition("=")
        if not equals:
            break
        name = name.strip(" \t;").lower()
        rest = rest.lstrip()
        if rest.startswith('"'):
            value, text = _quoted(rest)
        else:
            value, _, text = rest.partition(";")
            value = value.strip()
        if name and name not in found:
            found[name] = value
    return found


def _quoted(text: str) -> tuple[str, str]:
    """A quoted string at the head of the text, unquoted, and what follows its parameter."""
    out: list[str] = []
    i = 1
    while i < len(text) and text[i] != '"':
        if text[i] == "\\" and i + 1 < len(text):
            i += 1
        out.append(text[i])
        i += 1
    return "".join(out), text[i + 1 :].partition(";")[2]
