from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from servegraph.errors import GraphError, ModelLoadError
from servegraph.serving.loading import LoadPolicy, LoadState, ModelLoader


def loader(load: Callable[[], Any], **policy: Any) -> ModelLoader:
    return ModelLoader("m", load, LoadPolicy(**{"backoff_s": 0.0, **policy}))


class Fails:
    def __init__(self, times: int, error: BaseException | None = None) -> None:
        self.times, self.calls, self.error = times, 0, error or OSError("gone")

    def __call__(self) -> None:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error


@pytest.mark.parametrize(
    "policy", [{"mode": "lazy"}, {"timeout_s": 0}, {"timeout_s": -1}, {"retries": -1}, {"backoff_s": -0.1}]
)
def test_policy_that_makes_no_sense_is_refused(policy: dict[str, Any]) -> None:
    with pytest.raises(GraphError):
        LoadPolicy(**policy)


def test_sync_load_is_ready_when_start_returns() -> None:
    made = loader(lambda: None)
    assert made.state is LoadState.NEW
    made.start()
    assert (made.state, made.attempts, made.error) == (LoadState.READY, 1, None)
    assert made.seconds >= 0


def test_sync_load_that_fails_raises_with_the_cause() -> None:
    made = loader(Fails(1))
    with pytest.raises(ModelLoadError, match="failed to load model 'm': gone") as caught:
        made.start()
    assert isinstance(caught.value.__cause__, OSError)
    assert made.state is LoadState.FAILED
    assert made.error is caught.value.__cause__


def test_load_is_repeated_as_often_as_the_policy_says() -> None:
    load = Fails(2)
    made = loader(load, retries=2)
    made.start()
    assert (made.state, load.calls, made.attempts, made.error) == (LoadState.READY, 3, 3, None)
    with pytest.raises(ModelLoadError):
        loader(Fails(3), retries=2).start()


def test_load_that_takes_too_long_is_given_up() -> None:
    go_on = threading.Event()
    made = loader(lambda: go_on.wait(10), timeout_s=0.02)
    with pytest.raises(ModelLoadError, match=r"longer than 0\.02 s"):
        made.start()
    go_on.set()
    assert made.state is LoadState.FAILED


def test_load_within_its_time_limit_raises_its_own_error() -> None:
    with pytest.raises(ModelLoadError, match="gone"):
        loader(Fails(1), timeout_s=10).start()


def test_async_load_goes_on_behind_start() -> None:
    go_on = threading.Event()
    made = loader(lambda: go_on.wait(10), mode="async")
    made.start()
    assert not made.wait(0.02)
    assert "'m' is not ready yet" in str(made.not_ready())
    go_on.set()
    assert made.wait(10)
    assert made.state is LoadState.READY


def test_sync_load_whose_failure_cannot_be_shown_raises_with_the_models_name() -> None:
    class Hostile(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    with pytest.raises(ModelLoadError, match=r"failed to load model 'm': \(its text cannot be read\)") as caught:
        loader(Fails(1, Hostile())).start()
    assert isinstance(caught.value.__cause__, Hostile)


def test_async_load_that_fails_keeps_the_error_and_wakes_who_waits(caplog: pytest.LogCaptureFixture) -> None:
    made = loader(Fails(9), mode="async", retries=1)
    with caplog.at_level(logging.ERROR, "servegraph"):
        made.start()
        assert not made.wait(10)
    assert made.state is LoadState.FAILED
    assert str(made.error) == "gone"
    assert "'m'" in str(made.not_ready())
    assert "load attempt 2 of 2 failed" in caplog.text


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("timeout_s", [None, 10])
def test_load_that_asks_the_process_to_end_has_failed(mode: str, timeout_s: float | None) -> None:
    made = loader(Fails(9, SystemExit(2)), mode=mode, timeout_s=timeout_s)
    if mode == "sync":
        with pytest.raises(ModelLoadError):
            made.start()
    else:
        made.start()
        assert not made.wait(10)
    assert made.state is LoadState.FAILED


@pytest.mark.parametrize("retries", [0, 1])
def test_load_that_says_ready_itself_and_then_fails_has_failed(retries: int) -> None:
    made: ModelLoader

    def load() -> None:
        made.become(LoadState.READY)
        raise OSError("after all")

    made = loader(load, retries=retries)
    with pytest.raises(ModelLoadError, match="after all"):
        made.start()
    assert made.state is LoadState.FAILED


def test_close_ends_the_repetitions_at_once() -> None:
    load = Fails(99)
    made = loader(load, mode="async", retries=50, backoff_s=30.0)
    made.start()
    end = time.monotonic() + 10
    while made.state is not LoadState.WAITING and time.monotonic() < end:
        time.sleep(0.001)
    made.close()
    assert not made.wait(10)
    assert made.state is LoadState.FAILED
    assert load.calls == 1


ALLOWED = {
    ("new", "loading"), ("new", "ready"), ("loading", "ready"), ("loading", "waiting to retry"), ("loading", "failed"),
    ("waiting to retry", "loading"), ("waiting to retry", "ready"), ("waiting to retry", "failed"),
    ("ready", "loading"), ("failed", "loading"), ("failed", "ready"),
}  # fmt: skip


@pytest.mark.parametrize("first", LoadState)
@pytest.mark.parametrize("second", LoadState)
def test_state_follows_only_where_it_may(first: LoadState, second: LoadState) -> None:
    made = loader(lambda: None)
    made._state = first
    if first is second or (first.value, second.value) in ALLOWED:
        made.become(second)
        assert made.state is second
    else:
        with pytest.raises(GraphError, match=f"from {first.value!r} to {second.value!r}"):
            made.become(second)
        assert made.state is first
