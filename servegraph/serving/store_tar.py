"""A reader of tar streams that knows files and folders, in the ustar, GNU and pax forms, and refuses anything else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from servegraph.errors import ModelLoadError

_BLOCK = 512
_MAX_HEADER = 64 * 1024  # of a long name or pax record
_FILE_KINDS = (b"0", b"\0", b"7")
_REFUSED = {
    b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a pipe",
    b"S": "a sparse file",
}  # fmt: skip


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(slots=True)
class TarMember:
    """One file or folder; a file's content is read before the next member is asked for."""

    name: str
    is_folder: bool
    size: int
    _stream: _Stream
    _left: int = field(init=False)

    def __post_init__(self) -> None:
        self._left = self.size

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` further bytes; none at the end."""
        wanted = min(size, self._left)
        data = self._stream.read(wanted) if wanted else b""
        if wanted and not data:
            raise EOFError(f"{self.name[:80]!r} ends early")
        self._left -= len(data)
        return data


def read_tar(stream: _Stream, on_header: Callable[[int], None]) -> Iterator[TarMember]:
    """The files and folders of a tar stream, one after the other.

    Args:
        stream: the tar, uncompressed.
        on_header: told how many bytes headers and padding took, so that they count as well.

    Raises:
        ModelLoadError: it holds another kind of member.
        ValueError: it is not a tar.
        EOFError: it ends early.
    """
    overrides: dict[str, str] = {}
    while True:
        header = _exactly(stream, _BLOCK)
        on_header(_BLOCK)
        if not any(header):
            return
        _check_sum(header)
        kind, size, name = header[156:157], _number(header[124:136]), _name(header)
        if kind in (b"x", b"g", b"L", b"K"):
            if size > _MAX_HEADER:
                raise ValueError(f"a header of {size} bytes")
            data = _exactly(stream, size)
            padding = -size % _BLOCK
            _exactly(stream, padding)
            on_header(size + padding)
            if kind == b"x":
                overrides.update(_pax(data))
            elif kind == b"L":
                overrides["path"] = data.rstrip(b"\0").decode("utf-8")
            continue
        name = overrides.get("path", name)
        size = _whole(overrides["size"]) if "size" in overrides else size
        if any(key.startswith("GNU.sparse") for key in overrides):
            kind = b"S"
        overrides = {}
        is_folder = kind == b"5" or (kind == b"\0" and name.endswith("/"))
        if not is_folder and kind not in _FILE_KINDS:
            what = _REFUSED.get(kind, f"of the unknown kind {kind!r}")
            raise ModelLoadError(f"{name[:80]!r} is {what}; only files and folders are unpacked")
        member = TarMember(name, is_folder, 0 if is_folder else size, stream)
        yield member
        while member.read(_BLOCK):
            pass
        padding = -member.size % _BLOCK
        _exactly(stream, padding)
        on_header(padding)


def _exactly(stream: _Stream, size: int) -> bytes:
    data = stream.read(size) if size else b""
    if len(data) < size:
        raise EOFError("the archive ends early")
    return data


def _check_sum(header: bytes) -> None:
    # The sum is taken with its own field as spaces.
    if _number(header[148:156]) != sum(header[:148]) + 8 * 32 + sum(header[156:]):
        raise ValueError("a header has a wrong check sum")


def _number(data: bytes) -> int:
    """A number of a header: octal digits, or binary where the first bit is set."""
    if data[0] == 0x80:
        return int.from_bytes(data[1:], "big")
    if data[0] == 0xFF:
        raise ValueError("a header has a negative number")
    digits = data.partition(b"\0")[0].strip(b" ")
    if digits.strip(b"01234567"):
        raise ValueError("a header has a wrong number")
    return int(digits or b"0", 8)


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise ValueError("a header has a wrong size")
    return int(text)


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0]
    # GNU's own form keeps times where ustar keeps the beginning of a long path.
    if header[257:263] == b"ustar\0" and prefix:
        name = prefix + b"/" + name
    return name.decode("utf-8")


def _pax(data: bytes) -> dict[str, str]:
    """The records of a pax header: ``length key=value`` and a line break, the length being that of it all."""
    records: dict[str, str] = {}
    while data.strip(b"\0"):
        digits, space, _ = data.partition(b" ")
        length = _whole(digits.decode("ascii")) if space and len(digits) < 8 else 0
        record = data[:length]
        key, equals, value = record[len(digits) + 1 :].partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise ValueError("a pax header is broken")
        if key in (b"path", b"size") or key.startswith(b"GNU.sparse"):
            records[key.decode("utf-8")] = value[:-1].decode("utf-8")
        data = data[length:]
    return records
