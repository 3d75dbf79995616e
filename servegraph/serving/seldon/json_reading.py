"""JSON as Seldon's clients write it: Python's own codec has words for NaN and infinity, which JSON has not.

`json.dumps`, and with it every client that uses ``requests``, writes ``NaN``, ``Infinity`` and ``-Infinity``. The
fast decoder refuses them; only then is a body read a second time, within the same limits.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any, Final

from servegraph import jsoncodec
from servegraph.serving.limits import JsonLimits, parse_json

_BOM: Final = b"\xef\xbb\xbf"
_NOT_JSON: Final = re.compile(rb"NaN|Infinity|[eE]\+?[0-9]{3}|[0-9]{309}")
"""What the fast decoder may have refused: the words, and numbers that are infinite as a float."""


def read_json(text: bytes | str, limits: JsonLimits | None = None) -> Any:
    """The value of a JSON text, which may begin with a byte order mark and hold NaN and infinity.

    Raises:
        RequestError: it is too deep or holds too many values.
        JSONDecodeError: it is not JSON even so.
    """
    if isinstance(text, str):
        text = text.encode("utf-8", "surrogatepass")  # no UTF-8, which the decoder tells
    text = text.removeprefix(_BOM)
    return _loads(text) if limits is None else parse_json(text, limits, _loads)


def _loads(text: bytes) -> Any:
    try:
        return jsoncodec.loads(text)
    except jsoncodec.JSONDecodeError:
        if _NOT_JSON.search(text) is not None:
            with contextlib.suppress(ValueError, RecursionError):
                return _with_words(text)
        raise


def _with_words(text: bytes) -> Any:
    value = json.loads(text.decode(), parse_int=_whole)
    if b"\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()  # raises for half a character, which nothing could send on
    return value


def _whole(digits: str) -> int | float:
    """A whole number as the fast decoder gives it: a float where it has more than 64 bits."""
    number = int(digits) if len(digits) <= 20 else None
    return number if number is not None and -(2**63) <= number < 2**64 else float(digits)
