"""The life of a model before it serves: a state machine, loading in the caller or behind it, retries, waiting."""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from servegraph.errors import GraphError, ModelLoadError, ModelNotReadyError, text_of

logger = logging.getLogger("servegraph")


class LoadState(enum.Enum):
    """Where a model stands."""

    NEW = "new"
    LOADING = "loading"
    WAITING = "waiting to retry"
    READY = "ready"
    FAILED = "failed"


_ALLOWED: dict[LoadState, frozenset[LoadState]] = {
    LoadState.NEW: frozenset({LoadState.LOADING, LoadState.READY}),
    LoadState.LOADING: frozenset({LoadState.READY, LoadState.WAITING, LoadState.FAILED}),
    LoadState.WAITING: frozenset({LoadState.LOADING, LoadState.READY, LoadState.FAILED}),
    LoadState.READY: frozenset({LoadState.LOADING}),
    LoadState.FAILED: frozenset({LoadState.LOADING, LoadState.READY}),
}


@dataclass(frozen=True, slots=True)
class LoadPolicy:
    """How a model is loaded."""

    mode: str = "sync"
    """``sync``: the server waits for it and does not start without it; ``async``: it loads behind the server."""
    timeout_s: float | None = None
    """Seconds one attempt may take; ``None`` is without limit. A load that is given up keeps its thread."""
    retries: int = 0
    """How often a failed attempt is repeated."""
    backoff_s: float = 1.0
    """Seconds before the first repetition; doubled for each further one, at most 60."""

    def __post_init__(self) -> None:
        if self.mode not in ("sync", "async"):
            raise GraphError(f"load_mode is {self.mode!r}; valid: sync, async")
        if self.timeout_s is not None and self.timeout_s <= 0:
            raise GraphError(f"the load timeout must be above 0 seconds, not {self.timeout_s!r}")
        if self.retries < 0 or self.backoff_s < 0:
            raise GraphError("load retries and backoff cannot be negative")


class ModelLoader:
    """Loads one model and tells where it stands.

    Args:
        name: the model's name, for messages.
        load: does the work; raises when it cannot.
        policy: mode, timeout and retries.
    """

    def __init__(self, name: str, load: Callable[[], None], policy: LoadPolicy | None = None) -> None:
        self.name = name
        self.policy = policy or LoadPolicy()
        self.error: BaseException | None = None
        self.attempts = 0
        self.seconds = 0.0
        """How long the last attempt took."""
        self._load = load
        self._state = LoadState.NEW
        self._changed = threading.Condition()
        self._closed = threading.Event()

    @property
    def state(self) -> LoadState:
        """Where the model stands."""
        return self._state

    def become(self, state: LoadState, error: BaseException | None = None) -> None:
        """Move to a state, and wake who waits.

        Raises:
            GraphError: that state cannot follow the present one.
        """
        with self._changed:
            if state is self._state:
                return
            if state not in _ALLOWED[self._state]:
                raise GraphError(f"model {self.name!r} cannot go from {self._state.value!r} to {state.value!r}")
            self._state = state
            self.error = error
            self._changed.notify_all()

    def start(self) -> None:
        """Load the model: before this returns (``sync``), or on a thread of its own (``async``).

        Raises:
            ModelLoadError: a ``sync`` load failed or took too long; the cause is chained.
        """
        if self.policy.mode == "sync":
            self._run()
            error = self.error
            if self._state is LoadState.FAILED and error is not None:
                raise ModelLoadError(
                    f"failed to load model {self.name!r}: {text_of(error)}", model=self.name
                ) from error
            return
        threading.Thread(target=self._run, name=f"load-{self.name}", daemon=True).start()

    def close(self) -> None:
        """Repeat no more."""
        self._closed.set()

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until the model is ready or has failed for good; whether it is ready."""
        with self._changed:
            self._changed.wait_for(lambda: self._state in (LoadState.READY, LoadState.FAILED), timeout_s)
            return self._state is LoadState.READY

    def not_ready(self) -> ModelNotReadyError:
        """The error for a request that came too early."""
        if self._state is LoadState.FAILED:
            kind = type(self.error).__name__
            return ModelNotReadyError(
                f"model {self.name!r} is not ready: loading it failed ({kind})", retry_after=30, model=self.name
            )
        return ModelNotReadyError(
            f"model {self.name!r} is not ready yet: {self._state.value}", retry_after=1, model=self.name
        )

    def _run(self) -> None:
        policy = self.policy
        for attempt in range(policy.retries + 1):
            self.become(LoadState.LOADING)
            self.attempts += 1
            start = time.monotonic()
            try:
                self._attempt()
            except (Exception, SystemExit) as exc:
                self.seconds = time.monotonic() - start
                self.become(LoadState.LOADING)  # it may have called itself ready
                last = attempt == policy.retries or self._closed.is_set()
                logger.error(
                    "model %s: load attempt %d of %d failed",
                    self.name,
                    attempt + 1,
                    policy.retries + 1,
                    exc_info=exc if policy.mode == "async" or not last else None,
                )
                if last:
                    self.become(LoadState.FAILED, exc)
                    return
                self.become(LoadState.WAITING, exc)
                if self._closed.wait(min(policy.backoff_s * 2**attempt, 60.0)):
                    self.become(LoadState.FAILED, exc)
                    return
            else:
                self.seconds = time.monotonic() - start
                self.become(LoadState.READY)
                return

    def _attempt(self) -> None:
        timeout = self.policy.timeout_s
        if timeout is None:
            self._load()
            return
        failure: list[BaseException] = []
        done = threading.Event()

        def work() -> None:
            try:
                self._load()
            except BaseException as exc:  # noqa: BLE001 - handed to the thread that waits
                failure.append(exc)
            finally:
                done.set()

        threading.Thread(target=work, name=f"load-{self.name}-attempt", daemon=True).start()
        if not done.wait(timeout):
            raise ModelLoadError(f"loading took longer than {timeout:g} s", model=self.name)
        if failure:
            raise failure[0]
