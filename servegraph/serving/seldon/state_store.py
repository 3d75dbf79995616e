"""Where the state of components is kept between runs and shared between workers: in memory, in files, in Redis.

A store keeps two sorts of things under a key: a value (bytes, the last write wins) and a table (named fields, which
several processes change at once). What the bytes mean is of no concern here; see `state_kinds.py`.
"""

from __future__ import annotations

import abc
import threading
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from servegraph.errors import ServegraphError, SettingsError, closest
from servegraph.streams.uri import redact, scheme_of

Change: TypeAlias = Callable[[dict[str, bytes]], Mapping[str, bytes]]
"""Given the fields of a table, the fields to write. It may be called again when somebody else was quicker."""

STATE_STORE: Final = "seldon.state_store"
"""The service of a runtime that says where whoever runs it keeps the state of all steps; empty for nowhere."""
SCHEMES: Final = ("memory", "file", "redis", "rediss", "unix")


class StateStoreError(ServegraphError):
    """A store could not be read or written; trying again later may help."""


class StateStore(abc.ABC):
    """One place where state is kept. Its methods may be called from any thread.

    Every method raises `StateStoreError` when the store is not there or holds something else under the key.
    """

    def __init__(self, uri: str) -> None:
        self.shown = redact(uri)
        """The address without passwords, for messages."""

    def read(self, key: str) -> bytes | None:
        """The value under the key; ``None`` when there is none."""
        return self._read(key)

    def write(self, key: str, value: bytes) -> None:
        """Put a value under the key in place of the one that is there."""
        self._write(key, value)

    def read_table(self, key: str) -> dict[str, bytes]:
        """The fields of the table under the key; none when there is no table."""
        return self._read_table(key)

    def update(self, key: str, change: Change) -> dict[str, bytes]:
        """The fields of the table after what ``change`` returned was written; nobody else writes in between."""
        return self._update(key, change)

    def close(self) -> None:
        """Give up connections. A store may be used again afterwards."""
        self._close()

    @abc.abstractmethod
    def _read(self, key: str) -> bytes | None: ...

    @abc.abstractmethod
    def _write(self, key: str, value: bytes) -> None: ...

    @abc.abstractmethod
    def _read_table(self, key: str) -> dict[str, bytes]: ...

    @abc.abstractmethod
    def _update(self, key: str, change: Change) -> dict[str, bytes]: ...

    def _close(self) -> None:  # noqa: B027 - most stores hold nothing open
        pass


class MemoryStore(StateStore):
    """``memory://name``: state that lives as long as the process, shared by the stores of one name."""

    _named: Final[dict[str, MemoryStore]] = {}

    def __init__(self, uri: str = "memory://") -> None:
        super().__init__(uri)
        self._lock = threading.Lock()
        self._values: dict[str, bytes] = {}
        self._tables: dict[str, dict[str, bytes]] = {}

    @classmethod
    def of(cls, uri: str) -> MemoryStore:
        """The store of that name; one of its own for ``memory://``."""
        return cls._named.setdefault(uri, cls(uri)) if uri.partition("://")[2] else cls(uri)

    def _read(self, key: str) -> bytes | None:
        with self._lock:
            return self._values.get(key)

    def _write(self, key: str, value: bytes) -> None:
        with self._lock:
            self._values[key] = value

    def _read_table(self, key: str) -> dict[str, bytes]:
        with self._lock:
            return dict(self._tables.get(key, {}))

    def _update(self, key: str, change: Change) -> dict[str, bytes]:
        with self._lock:
            table = self._tables.setdefault(key, {})
            table.update(change(dict(table)))
            return dict(table)


def open_store(uri: str) -> StateStore:
    """The store at an address: ``redis://host:port/db``, ``file:///folder`` or ``memory://name``.

    Nothing is connected to yet.

    Raises:
        SettingsError: the address is of none of these forms.
        MissingExtraError: it is Redis's, and the client is not installed.
    """
    scheme = check_address(uri)
    if scheme == "memory":
        return MemoryStore.of(uri)
    if scheme == "file":
        from servegraph.serving.seldon.state_file import FileStore

        return FileStore(uri)
    from servegraph.serving.seldon.state_redis import RedisStore

    return RedisStore(uri)


def check_address(uri: str) -> str:
    """The scheme of a store's address.

    Raises:
        SettingsError: it is none that `open_store` knows.
    """
    scheme = scheme_of(uri)
    if scheme in SCHEMES:
        return scheme
    raise SettingsError(
        f"{redact(uri)!r} is no address of a state store; write redis://host:port/db, file:///folder or memory://name"
        + (f" ({closest(scheme, SCHEMES)})" if scheme else "")
    )


def state_key(deployment_id: str = "", predictor_id: str = "", unit_id: str = "") -> str:
    """The key that Seldon's runtime kept a component under; ``0`` stands where a name is not given."""
    return f"persistence_{deployment_id or 0}_{predictor_id or 0}_{unit_id or 0}"
