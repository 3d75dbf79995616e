"""Counts that several processes add to at once, exact though connections break and stores forget.

Adding to a number in a store cannot be repeated safely: when the answer is lost, nobody knows whether it was added.
So a process never adds. It has a slot of its own in the table and writes into it all that was counted there; the
total is the sum of the slots. To write a slot twice does no harm, and a process that sees a slot missing, or older
than it was, puts back what it remembers: a store that comes back empty, or with what it held an hour ago, is mended
by whoever is still running.

A process that ends gives its slot free, and the next one to start goes on counting in it, so that there are as many
slots as there ever were processes at one time. A slot whose owner has been silent for a day is taken over as well.
Should the owner come back, it finds another's name there, takes a new slot, and brings what the other has not seen.
"""

from __future__ import annotations

import json
import logging
import math
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from servegraph.serving.seldon.state_store import StateStore

logger = logging.getLogger("servegraph.seldon.state")

Counts: TypeAlias = dict[str, float]

STALE_AFTER_S: Final = 24 * 3600.0
_SIGN_OF_LIFE_S: Final = 3600.0
_REMEMBERED: Final = 5


@dataclass(frozen=True, slots=True)
class _Slot:
    owner: str
    """Who counts in it, or counted in it last."""
    free: bool
    """Whether the owner has left it to the next one."""
    version: int
    """Goes up with every writing, whoever writes."""
    written_at: float
    counts: Counts = field(default_factory=dict)
    past: tuple[tuple[str, Counts], ...] = ()
    """The last owners before this one, and what each had left in it when it was taken."""

    def text(self) -> bytes:
        raw = {"owner": self.owner, "free": self.free, "version": self.version, "at": self.written_at}
        return json.dumps(raw | {"counts": self.counts, "past": self.past}).encode()

    @classmethod
    def read(cls, text: bytes) -> _Slot:
        raw = json.loads(text)
        past = tuple((str(owner), _read(counts)) for owner, counts in raw["past"])
        owner, version, written_at = str(raw["owner"]), int(raw["version"]), float(raw["at"])
        return cls(owner, bool(raw["free"]), version, written_at, _read(raw["counts"]), past)


def _read(raw: Mapping[str, Any]) -> Counts:
    counts = dict(raw)
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in counts.values()):
        raise ValueError("a count is not a finite number")
    return counts


@dataclass(slots=True)
class _Place:
    """Where this process counts; ``name`` is ``None`` while it has no slot."""

    name: str | None = None
    taken_at_version: int = 0
    past: tuple[tuple[str, Counts], ...] = ()
    settled: Counts = field(default_factory=dict)
    """What of this process's own counts is in slots that are no longer its own."""


class SharedCounts:
    """One process's part in the counts under a key. Not for use by several threads at once.

    Args:
        store: where the table is.
        key: its key.
        clock: the time in seconds since 1970.
    """

    def __init__(self, store: StateStore, key: str, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._key = key
        self._clock = clock
        self._owner = uuid.uuid4().hex[:16]
        self._place = _Place()
        self._known: dict[str, _Slot] = {}
        self._puzzled: set[str] = set()

    def total(self) -> Counts:
        """What all processes have counted together, as the store has it; nothing is written.

        Raises:
            StateStoreError: the store cannot be read.
        """
        self._known = _newest(self._parse(self._store.read_table(self._key)), self._known)
        return _sum(slot.counts for slot in self._known.values())

    def sync(self, own: Mapping[str, float], *, leave: bool = False) -> Counts:
        """Write what this process has counted since it was started; returns what all others have.

        Args:
            own: the counts of this process, which only it changes. They never go down.
            leave: give the slot free for the next process.

        Raises:
            StateStoreError: the store cannot be read or written. The next call makes up for it.
        """
        own = {name: value for name, value in own.items() if value}
        plan = _Plan(self._owner, self._place, self._known, own)

        def change(fields: dict[str, bytes]) -> dict[str, bytes]:
            return plan.changes(self._parse(fields), self._clock(), leave=leave)

        try:
            self._store.update(self._key, change)
        finally:
            # Also when the answer is lost: the slot may be taken by now, and if it is not, nothing is wrong with that.
            self._known, self._place = plan.slots, plan.place
        if leave:
            self._place = _Place(settled=own)
        return _minus(_sum(slot.counts for slot in plan.slots.values()), own)

    def _parse(self, fields: Mapping[str, bytes]) -> dict[str, _Slot]:
        slots = {}
        for name, text in fields.items():
            try:
                slots[name] = _Slot.read(text)
            except (ValueError, KeyError, TypeError, AttributeError) as exc:
                if name not in self._puzzled:
                    self._puzzled.add(name)
                    logger.warning("%s: %r in %r is not a slot of counts: %r", self._store.shown, name, self._key, exc)
        return slots


class _Plan:
    """What to write, worked out from what is stored; anew each time that somebody else was quicker."""

    def __init__(self, owner: str, place: _Place, known: dict[str, _Slot], own: Counts) -> None:
        self._owner = owner
        self._before = place
        self._known = known
        self._own = own
        self.place = place
        self.slots = known

    def changes(self, stored: dict[str, _Slot], now: float, *, leave: bool) -> dict[str, bytes]:
        """The slots to write, in the form that they are stored in."""
        self.place = replace(self._before)
        self.slots = _newest(stored, self._known)
        if self.place.name is not None and self._is_taken(stored.get(self.place.name)):
            self._give_up(stored[self.place.name])
        if self.place.name is None and _minus(self._own, self.place.settled):
            self._take(now)
        if self.place.name is not None:
            self._count(self.place.name, now, leave)
        return {name: slot.text() for name, slot in self.slots.items() if slot != stored.get(name)}

    def _is_taken(self, slot: _Slot | None) -> bool:
        """Whether another one counts in the slot. An older version of it is only what a store went back to."""
        return slot is not None and slot.owner != self._owner and slot.version >= self.place.taken_at_version

    def _give_up(self, slot: _Slot) -> None:
        """Leave the slot to its new owner, and keep for another slot what that one did not find in it."""
        place = self.place
        assert place.name is not None
        unseen = _minus(self._counts(), self._seen(slot))
        self.slots[place.name] = slot
        self.place = _Place(settled=_minus(self._own, {name: value for name, value in unseen.items() if value > 0}))

    def _seen(self, slot: _Slot) -> Counts:
        """What of this process's slot is in the new owner's as well."""
        mine = [counts for owner, counts in slot.past if owner == self._owner]
        if mine:
            return mine[-1]
        before_me = self.place.past[-1][0] if self.place.past else ""
        if len(slot.past) == _REMEMBERED and before_me not in [owner for owner, _ in slot.past]:
            # Gone for so long that it is no longer remembered: rather lose a little than count it twice.
            return slot.past[-1][1]
        # The store went back to a time before this process had the slot, or never got to know of it.
        return self._found()

    def _take(self, now: float) -> None:
        place = self.place
        for name, slot in sorted(self.slots.items()):
            if slot.free or now - slot.written_at > STALE_AFTER_S:
                place.past = (*slot.past, (slot.owner, slot.counts))[-_REMEMBERED:]
                place.name, place.taken_at_version = name, slot.version + 1
                return
        place.name, place.taken_at_version, place.past = uuid.uuid4().hex[:16], 1, ()

    def _count(self, name: str, now: float, leave: bool) -> None:
        before, counts = self.slots.get(name), self._counts()
        same = before is not None and (before.owner, before.free, before.counts) == (self._owner, leave, counts)
        if before is not None and same and now - before.written_at < _SIGN_OF_LIFE_S:
            return
        version = before.version + 1 if before is not None else 1
        self.slots[name] = _Slot(self._owner, leave, version, now, counts, self.place.past)

    def _counts(self) -> Counts:
        """What belongs into the slot: what was found there, and what was counted since that is in no other slot."""
        return _sum([self._found(), _minus(self._own, self.place.settled)])

    def _found(self) -> Counts:
        return self.place.past[-1][1] if self.place.past else {}


def _newest(stored: Mapping[str, _Slot], known: Mapping[str, _Slot]) -> dict[str, _Slot]:
    """For every slot the newest that is stored or remembered."""
    newest = dict(stored)
    for name, slot in known.items():
        if name not in newest or newest[name].version < slot.version:
            newest[name] = slot
    return newest


def _sum(parts: Iterable[Mapping[str, float]]) -> Counts:
    total: Counts = {}
    for counts in parts:
        for name, value in counts.items():
            total[name] = total.get(name, 0) + value
    return total


def _minus(one: Mapping[str, float], other: Mapping[str, float]) -> Counts:
    """The difference, without what is zero."""
    names = one.keys() | other.keys()
    return {name: rest for name in names if (rest := one.get(name, 0) - other.get(name, 0))}
