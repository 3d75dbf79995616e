"""``redis://host:port/db``: state that outlives the machine and is shared by all replicas."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from typing import Any

from servegraph.errors import SettingsError
from servegraph.importing import import_extra
from servegraph.serving.seldon.state_store import Change, StateStore, StateStoreError

_TRIES = 100
_LONGEST_PAUSE_S = 0.05


class RedisStore(StateStore):
    """Values are strings, tables are hashes, both without an expiry. Works with Redis 5 and later, and with Valkey.

    A table is changed in a ``WATCH`` transaction: where somebody else was quicker, the change is worked out anew.

    Args:
        uri: ``redis://[user:password@]host[:port][/db]``, ``rediss://`` for TLS, ``unix:///socket?db=0``.
        connect_timeout_s: how long connecting may take.
        timeout_s: how long an answer may take.
    """

    def __init__(self, uri: str, *, connect_timeout_s: float = 2.0, timeout_s: float = 5.0) -> None:
        super().__init__(uri)
        redis = import_extra("redis", feature="a state store in Redis", extra="redis")
        backoff = import_extra("redis.backoff", feature="a state store in Redis", extra="redis")
        retry = import_extra("redis.retry", feature="a state store in Redis", extra="redis")
        self._errors: Any = redis.exceptions
        try:
            self._client: Any = redis.Redis.from_url(
                uri,
                socket_connect_timeout=connect_timeout_s,
                socket_timeout=timeout_s,
                # The caller tries again; a second try at once is for a connection that was idle while Redis restarted.
                retry=retry.Retry(backoff.NoBackoff(), 1),
            )
        except ValueError as exc:
            raise SettingsError(f"{self.shown}: {exc}") from exc

    def _read(self, key: str) -> bytes | None:
        with self._told(key):
            value: bytes | None = self._client.get(key)
            return value

    def _write(self, key: str, value: bytes) -> None:
        with self._told(key):
            # SET would put itself in the place of a hash or list that somebody else keeps there.
            kind = self._client.type(key).decode()
            if kind not in ("none", "string"):
                raise StateStoreError(f"{self.shown}: key {key!r} holds a {kind}, not a string: it is not overwritten")
            self._client.set(key, value)

    def _read_table(self, key: str) -> dict[str, bytes]:
        with self._told(key):
            return _named(self._client.hgetall(key))

    def _update(self, key: str, change: Change) -> dict[str, bytes]:
        with self._told(key):
            for attempt in range(_TRIES):
                try:
                    return self._try(key, change)
                except self._errors.WatchError:
                    time.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, 0.001 * (attempt + 1))))
            raise StateStoreError(f"{self.shown}: key {key!r} was changed by others {_TRIES} times in a row")

    def _close(self) -> None:
        self._client.close()

    def _try(self, key: str, change: Change) -> dict[str, bytes]:
        with self._client.pipeline(transaction=True) as transaction:
            transaction.watch(key)
            fields = _named(transaction.hgetall(key))
            changes = dict(change(dict(fields)))
            if changes:
                transaction.multi()
                transaction.hset(key, mapping=changes)
                transaction.execute()
            return fields | changes

    @contextlib.contextmanager
    def _told(self, key: str) -> Iterator[None]:
        try:
            yield
        except self._errors.ResponseError as exc:
            if "WRONGTYPE" not in str(exc):
                raise StateStoreError(f"{self.shown}: {exc}") from exc
            raise StateStoreError(
                f"{self.shown}: key {key!r} holds something else than servegraph keeps there: it is not touched; "
                "rename or delete it"
            ) from exc
        except (self._errors.RedisError, OSError) as exc:
            raise StateStoreError(f"{self.shown}: {exc}") from exc


def _named(fields: dict[bytes, bytes]) -> dict[str, bytes]:
    # A name that is not ASCII is none of ours: it is left alone.
    return {name.decode(): value for name, value in fields.items() if name.isascii()}
