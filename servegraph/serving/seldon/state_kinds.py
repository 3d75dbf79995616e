"""The three ways in which a component's state can be kept, from the best to the last.

1. *Counts*, of components that only add up: ``get_counts()`` and ``set_shared_counts(counts)``. Any number of workers
   and replicas learn together, and none loses what another has learnt (`state_counts.py`).
2. *A state*, of any other component: ``get_state()`` and ``set_state(state)``, a dict that has a JSON form. The last
   one that saves wins. With ``merge_state(saved)`` it can also take up a state when it has learnt something itself.
3. *The whole object*, pickled, as Seldon's runtime did it; only where the deployment allows that.

The methods are called from another thread while requests are answered: they take the component's own lock. Each kind
raises `StateStoreError` when the store is not to be had; anything else that is raised is the component's fault.
"""

from __future__ import annotations

import abc
import logging
import pickle
import time
from typing import Any, Final, Protocol, runtime_checkable

from servegraph import jsoncodec
from servegraph.serving.seldon.state_counts import Counts, SharedCounts
from servegraph.serving.seldon.state_store import StateStore, StateStoreError, state_key

logger = logging.getLogger("servegraph.seldon.state")

HOW_TO: Final = (
    "give it get_counts() and set_shared_counts(counts) if it only adds up, else get_state() and set_state(state); "
    "or have the whole object pickled, with --allow-pickle"
)


@runtime_checkable
class Counting(Protocol):
    """A component whose state is nothing but counts, which only go up."""

    def get_counts(self) -> Counts:
        """What this object has counted itself since it was made."""
        ...

    def set_shared_counts(self, counts: Counts) -> None:
        """Take note of what all others have counted; it replaces what was said before."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """A component whose state can be written down."""

    def get_state(self) -> dict[str, Any]:
        """The state as something that has a JSON form."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state that ``get_state`` returned before."""
        ...


class KeptState(abc.ABC):
    """How the state of one component gets into a store and out of it."""

    shared = False
    """Whether saving also brings what others have learnt, so that it is worth doing often."""

    def __init__(self, component: Any, store: StateStore, key: str) -> None:
        self.component = component
        self.store = store
        self.key = key
        self.name = type(component).__qualname__

    @abc.abstractmethod
    def restore(self) -> Any | None:
        """Bring the component to the state that is kept; another object where that one is to be served in its place."""

    @abc.abstractmethod
    def save(self, *, final: bool = False) -> None:
        """Write the state down; ``final`` when the component ends."""

    def make_room(self, other: str) -> bool:
        """Whether the key is that of everything without names, and holds what belongs to another class.

        Then that stays there, and this component has a key of its own.
        """
        if self.key != state_key() or other == self.name:
            return False
        own = f"{self.key}:{self.name}"
        logger.warning(
            "state of %s: key %r holds the state of %s, which stays there; this one is kept under %r. Components "
            "without PREDICTIVE_UNIT_ID, PREDICTOR_ID and SELDON_DEPLOYMENT_ID share one key: set them",
            *(self.name, self.key, other, own),
        )
        self.key = own
        return True

    def set_aside(self, value: bytes, ending: str, why: str) -> None:
        """Keep what would be lost otherwise under a key of its own."""
        key = f"{self.key}:{ending}"
        self.store.write(key, value)
        logger.error("state of %s: %s; it is kept under %r", self.name, why, key)


class KeptCounts(KeptState):
    """The counts of all workers and replicas under ``<key>:counts``."""

    shared = True

    def __init__(self, component: Counting, store: StateStore, key: str) -> None:
        super().__init__(component, store, key)
        self._shared = SharedCounts(store, f"{key}:counts")

    def restore(self) -> None:
        """Tell the component what was counted so far."""
        self.component.set_shared_counts(self._shared.total())
        tell_of_old_object(self, "it is of no use to a component that counts")

    def save(self, *, final: bool = False) -> None:
        """Write what was counted here, and tell the component what was counted elsewhere."""
        self.component.set_shared_counts(self._shared.sync(self.component.get_counts(), leave=final))


class KeptDict(KeptState):
    """The state as JSON under ``<key>:state``."""

    def __init__(self, component: Stateful, store: StateStore, key: str, *, allow_pickle: bool) -> None:
        super().__init__(component, store, key)
        self._allow_pickle = allow_pickle
        self._met = False

    def restore(self) -> Any | None:
        """Give the component the state that is kept, or that of an old runtime where this is allowed."""
        text = self._saved()
        old = None
        if text is not None:
            self._give(text)
        elif self._allow_pickle:
            old = load_object(self)
            self.component = self.component if old is None else old
        else:
            tell_of_old_object(self, "allow_pickle lets it be loaded")
        self._met = True
        return old

    def save(self, *, final: bool = False) -> None:
        """Write the state down; what is there is taken up first if it was out of reach when the component started."""
        if not self._met:
            self._meet()
        self.store.write(f"{self.key}:state", self._text())

    def _meet(self) -> None:
        saved = self._saved()
        merge = getattr(self.component, "merge_state", None)
        if saved is not None and merge is None:
            why = "it has no merge_state(saved), so what it learnt before the store was there gives way to what is kept"
            self.set_aside(self._text(), "unmerged", why)
        if saved is not None:
            self._give(saved, merge)
        self._met = True

    def _saved(self) -> bytes | None:
        """The state that is kept for the component."""
        saved = self.store.read(f"{self.key}:state")
        other = None if saved is None else _class_in(saved)
        return self.store.read(f"{self.key}:state") if other is not None and self.make_room(other) else saved

    def _text(self) -> bytes:
        state = {"version": 1, "class": self.name, "saved_at": time.time(), "state": self.component.get_state()}
        return jsoncodec.dumps(state, refuse_nan=True)

    def _give(self, text: bytes, method: Any = None) -> None:
        try:
            (method or self.component.set_state)(jsoncodec.loads(text)["state"])
        except Exception as exc:  # noqa: BLE001 - whatever the component raises about a state that it cannot use
            self.set_aside(text, "unreadable", f"it cannot go on from what is kept ({exc!r}) and starts anew")


class KeptObject(KeptState):
    """The whole object as a pickle under the key itself, where Seldon's runtime kept it."""

    def __init__(self, component: Any, store: StateStore, key: str) -> None:
        super().__init__(component, store, key)
        self._met = False
        self._unmerged = False

    def restore(self) -> Any | None:
        """The object that is kept; ``None`` when there is none, or none of this class."""
        found = load_object(self)
        self._met = True
        if found is not None:
            self.component = found
        return found

    def save(self, *, final: bool = False) -> None:
        """Write the object down."""
        text = pickle.dumps(self.component)
        if not self._met:
            self._unmerged = self.store.read(self.key) is not None
            if self._unmerged:
                logger.error(
                    "state of %s: key %r holds an object that was out of reach when this one started: it is left as it "
                    "is, and this one is kept under %r; start anew to go on from it",
                    *(self.name, self.key, f"{self.key}:unmerged"),
                )
            self._met = True
        self.store.write(f"{self.key}:unmerged" if self._unmerged else self.key, text)


def kept_state(component: Any, store: StateStore, key: str, *, allow_pickle: bool) -> KeptState | None:
    """The best way in which the component's state can be kept; ``None`` when there is none, which is logged."""
    if isinstance(component, Counting):
        return KeptCounts(component, store, key)
    if isinstance(component, Stateful):
        return KeptDict(component, store, key, allow_pickle=allow_pickle)
    if allow_pickle:
        return KeptObject(component, store, key)
    logger.error("state of %s is not kept: %s", type(component).__qualname__, HOW_TO)
    return None


def load_object(kept: KeptState) -> Any | None:
    """The object that is pickled under the key itself; ``None`` when there is none of the component's class."""
    text = kept.store.read(kept.key)
    if text is None:
        return None
    try:
        found = pickle.loads(text)  # noqa: S301 - the deployment allows it
    except Exception as exc:  # noqa: BLE001 - unpickling runs code of anybody's
        kept.set_aside(text, "unreadable", f"the pickle under {kept.key!r} cannot be loaded ({exc!r})")
        return None
    other = type(found).__qualname__
    if other != kept.name:
        if kept.make_room(other):
            return load_object(kept)
        why = f"the pickle under {kept.key!r} is of a {other}"
        kept.set_aside(text, "unreadable", why)
        return None
    return found


def _class_in(text: bytes) -> str | None:
    """The class whose state a text is; ``None`` where it does not say."""
    try:
        found = jsoncodec.loads(text)
    except jsoncodec.JSONDecodeError:
        return None
    name = found.get("class") if isinstance(found, dict) else None
    return name if isinstance(name, str) else None


def tell_of_old_object(kept: KeptState, then: str) -> None:
    """Log that there is something under the key itself, where Seldon's runtime kept pickles. It stays as it is."""
    try:
        old = kept.store.read(kept.key)
    except StateStoreError as exc:
        logger.warning("state of %s: %s", kept.name, exc)
        return
    if old is not None:
        logger.warning(
            "state of %s: key %r in %s holds an object that Seldon's runtime pickled (%d bytes). It is not loaded, "
            "since loading it runs whatever code it holds, and not overwritten; %s",
            *(kept.name, kept.key, kept.store.shown, len(old), then),
        )
