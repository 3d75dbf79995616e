"""Where metric values live: arrays of float64 that other processes can read while they are written.

Each worker slot has two files in the metrics folder: ``<slot>.values``, an array mapped into the memory of the
worker, and ``<slot>.keys``, to which a line of JSON is added for each child, saying what it is and which cells of
the array it has. A line is written before its cells are used and never changed, so that a worker may be killed
at any moment. The next worker of the slot takes the files over: its counters go on from where they were.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from servegraph import jsoncodec
from servegraph.errors import ServegraphError

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
Cells: TypeAlias = "memoryview[float]"

_CELL = 8
_CHUNK_CELLS = 4096
"""Cells of one piece of the array, a whole number of pages: growing adds a piece and moves none."""


@dataclass(frozen=True, slots=True)
class Family:
    """What all children of a metric share."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    """Label names, sorted."""
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram, rising, without infinity."""
    summed: bool = False
    """Whether a gauge is added up over the workers rather than shown for each."""
    open: bool = False
    """Whether children have further labels of their own, after the values as pairs of name and value; of such a
    gauge the last value that any worker set is shown."""

    @property
    def cells(self) -> int:
        """Cells of a child: a value; that and when it was set; or buckets, what is above them all, and the sum."""
        if self.kind == "histogram":
            return len(self.buckets) + 2
        return 2 if self.kind == "gauge" and self.open else 1


@dataclass(frozen=True, slots=True)
class Key:
    """A child of a metric and where its cells begin."""

    family: Family
    values: tuple[str, ...]
    """Label values, in the order of the family's label names."""
    first: int
    """Number of its first cell within the slot."""


class Store(Protocol):
    """Gives out cells."""

    def known(self) -> list[Key]:
        """The children that are there already."""

    def cells_of(self, key: Key) -> tuple[Cells, int]:
        """The array that holds a child's cells and where in it they begin."""

    def add(self, family: Family, values: tuple[str, ...]) -> Key:
        """New cells, all 0, for a child."""


class _Allocator:
    """Numbers cells so that those of a child lie within one piece."""

    def __init__(self) -> None:
        self.next = 0

    def take(self, count: int) -> int:
        if count > _CHUNK_CELLS:
            raise ServegraphError(f"a histogram has at most {_CHUNK_CELLS - 2} buckets")
        if self.next % _CHUNK_CELLS + count > _CHUNK_CELLS:
            self.next += _CHUNK_CELLS - self.next % _CHUNK_CELLS
        first, self.next = self.next, self.next + count
        return first


class MemoryStore:
    """Cells in the memory of this process alone."""

    def __init__(self) -> None:
        self._pieces: list[Cells] = []
        self._allocator = _Allocator()

    def known(self) -> list[Key]:
        """Nothing: the memory is new."""
        return []

    def add(self, family: Family, values: tuple[str, ...]) -> Key:
        """New cells for a child."""
        return Key(family, values, self._allocator.take(family.cells))

    def cells_of(self, key: Key) -> tuple[Cells, int]:
        """The array that holds a child's cells and where in it they begin."""
        piece, offset = divmod(key.first, _CHUNK_CELLS)
        while len(self._pieces) <= piece:
            self._pieces.append(memoryview(bytearray(_CHUNK_CELLS * _CELL)).cast("d"))
        return self._pieces[piece], offset


class FileStore:
    """Cells in the files of a slot, which belong to this process until it ends.

    Raises:
        ServegraphError: another process has the slot, or its files are damaged.
    """

    def __init__(self, directory: Path, slot: int) -> None:
        self._lock = os.open(directory / f"{slot}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # The lock of a process, not of a file handle: a forgotten child of a dead worker cannot hold it.
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(self._lock)
            raise ServegraphError(f"metrics slot {slot} in {directory} belongs to another process") from exc
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._values = os.open(directory / f"{slot}.values", flags, 0o600)
        self._table = os.open(directory / f"{slot}.keys", flags | os.O_APPEND, 0o600)
        self._pieces: dict[int, Cells] = {}
        self._allocator = _Allocator()
        self._known = list(self._read_table(directory / f"{slot}.keys"))
        for key in self._known:
            self._allocator.next = max(self._allocator.next, key.first + key.family.cells)

    def _read_table(self, path: Path) -> Iterator[Key]:
        data = os.pread(self._table, os.fstat(self._table).st_size, 0)
        whole = data.rfind(b"\n") + 1
        if whole < len(data):  # the worker before was killed while it wrote this line
            os.ftruncate(self._table, whole)
        return read_keys(data[:whole], path)

    def known(self) -> list[Key]:
        """The children that earlier workers of the slot have made."""
        return self._known

    def add(self, family: Family, values: tuple[str, ...]) -> Key:
        """New cells for a child, and the line that tells others of it."""
        key = Key(family, values, self._allocator.take(family.cells))
        self.cells_of(key)  # the array must be there before anybody is told
        os.write(self._table, _line(key))
        return key

    def cells_of(self, key: Key) -> tuple[Cells, int]:
        """The array that holds a child's cells and where in it they begin."""
        piece, offset = divmod(key.first, _CHUNK_CELLS)
        if piece not in self._pieces:
            size = _CHUNK_CELLS * _CELL
            if os.fstat(self._values).st_size < (piece + 1) * size:
                # Not ftruncate: a write to a page that the full file system cannot give kills the process.
                os.posix_fallocate(self._values, 0, (piece + 1) * size)
            mapped = mmap.mmap(self._values, size, offset=piece * size)
            self._pieces[piece] = memoryview(mapped).cast("d")
        return self._pieces[piece], offset


class SlotReader:
    """Reads the files of a slot, which another process may be writing; remembers the keys it has read."""

    def __init__(self, directory: Path, slot: int) -> None:
        self._keys_path = directory / f"{slot}.keys"
        self._values_path = directory / f"{slot}.values"
        self._position = 0
        self._keys: list[Key] = []

    def read(self) -> tuple[list[Key], Cells]:
        """All children of the slot and the array with their cells."""
        with self._keys_path.open("rb") as file:
            file.seek(self._position)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self._keys.extend(read_keys(data[:whole], self._keys_path))
        self._position += whole
        values = self._values_path.read_bytes()
        return self._keys, memoryview(values).cast("d")


class SharedCells:
    """The cells of this process and, where a folder is shared, a view of those of its sibling workers."""

    def __init__(self, directory: Path | None, slot: int) -> None:
        self.store: Store = MemoryStore() if directory is None else FileStore(directory, slot)
        self._directory = directory
        self._slot = slot
        self._readers: dict[int, SlotReader] = {}

    def all(self, own: Iterable[Key]) -> Iterator[tuple[int, Key, Sequence[float]]]:
        """Each child of each slot, with an array in which ``key.first`` is the number of its first cell.

        Args:
            own: the children of this process.
        """
        if self._directory is None:
            for key in own:
                cells, index = self.store.cells_of(key)
                yield self._slot, Key(key.family, key.values, index), cells
            return
        for slot in slots_in(self._directory):
            reader = self._readers.get(slot) or self._readers.setdefault(slot, SlotReader(self._directory, slot))
            keys, values = reader.read()
            for key in keys:
                yield slot, key, values


def slots_in(directory: Path) -> list[int]:
    """The slots that have files in a metrics folder."""
    return sorted(int(path.stem) for path in directory.glob("*.keys") if path.stem.isdigit())


def read_keys(data: bytes, path: Path) -> Iterator[Key]:
    """The keys in whole lines of a key table.

    Raises:
        ServegraphError: a line is none that servegraph has written.
    """
    families: dict[bytes, Family] = {}
    for line in data.splitlines():
        try:
            entry = jsoncodec.loads(line)
            text = jsoncodec.dumps(entry["family"])
            family = families.get(text) or families.setdefault(text, _family(entry["family"]))
            yield Key(family, tuple(entry["values"]), entry["first"])
        except (ValueError, TypeError, KeyError) as exc:
            raise ServegraphError(f"{path} is not a table of metrics: {line[:200]!r}") from exc


def _family(data: dict[str, Any]) -> Family:
    return Family(**{**data, "labels": tuple(data["labels"]), "buckets": tuple(data["buckets"])})


def _line(key: Key) -> bytes:
    return jsoncodec.dumps({"first": key.first, "values": key.values, "family": key.family}) + b"\n"
