"""State outlives the process, is shared by several, and nothing that happens to the store is felt by a request."""

from __future__ import annotations

import json
import logging
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_redis import OwnRedis

from servegraph.errors import SettingsError
from servegraph.serving.seldon.bandits import EpsilonGreedy, ThompsonSampling
from servegraph.serving.seldon.persistence import Persistence
from servegraph.serving.seldon.state_store import MemoryStore, StateStoreError, open_store, state_key

KEY = "persistence_d_p_u"
ROW = np.zeros((1, 2))
OFTEN = 0.02


class Learner:
    """Keeps a number by the state protocol."""

    def __init__(self, n: int = 0) -> None:
        self.n = n

    def get_state(self) -> dict[str, Any]:
        return {"n": self.n}

    def set_state(self, state: dict[str, Any]) -> None:
        self.n = state["n"]


class Merging(Learner):
    def merge_state(self, saved: dict[str, Any]) -> None:
        self.n += saved["n"]


class Plain:
    """Has no way of its own to keep its state."""

    def __init__(self, n: int = 0) -> None:
        self.n = n


class OtherPlain(Plain):
    pass


class Locked(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class DeadStore(MemoryStore):
    """Answers nothing until it is brought to life."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = False
        self.asked = threading.Event()

    def _check(self) -> None:
        self.asked.set()
        if not self.alive:
            raise StateStoreError("nobody there")

    def _read(self, key: str) -> bytes | None:
        self._check()
        return super()._read(key)

    def _write(self, key: str, value: bytes) -> None:
        self._check()
        super()._write(key, value)


@pytest.fixture
def redis(tmp_path: Path, free_port: int) -> Iterator[OwnRedis]:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = OwnRedis(folder, free_port)
    server.start()
    yield server
    server.kill()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.005)


def learn(bandit: EpsilonGreedy | ThompsonSampling, rounds: int, branch: int = 0) -> None:
    for _ in range(rounds):
        bandit.send_feedback(ROW, [], 1.0, None, routing=branch)


# -- a state and its store -----------------------------------------------------------------------------------------


def test_state_is_saved_when_it_ends_and_restored_at_start() -> None:
    store = MemoryStore()
    first = Persistence(Learner(7), store, KEY)
    assert first.restore() is None
    first.start()
    assert first.stop()
    learner = Learner()
    assert Persistence(learner, store, KEY).restore() is None
    assert learner.n == 7


def test_state_is_saved_on_its_period() -> None:
    store, learner = MemoryStore(), Learner(1)
    persistence = Persistence(learner, store, KEY, period_s=OFTEN)
    persistence.start()
    until(lambda: store.read(f"{KEY}:state") is not None)
    learner.n = 2
    until(lambda: json.loads(store.read(f"{KEY}:state") or b"{}")["state"] == {"n": 2})
    assert persistence.stop()


def test_state_of_a_store_that_was_dead_at_start_is_merged_when_it_is_back() -> None:
    store = DeadStore()
    MemoryStore._write(store, f"{KEY}:state", b'{"state": {"n": 100}}')
    learner = Merging()
    persistence = Persistence(learner, store, KEY, period_s=OFTEN)
    persistence.restore()
    assert persistence.failing
    persistence.start()
    learner.n = 5
    store.alive = True
    until(lambda: not persistence.failing)
    assert learner.n == 105
    assert persistence.stop()
    assert json.loads(store.read(f"{KEY}:state") or b"")["state"] == {"n": 105}


def test_state_that_cannot_be_merged_gives_way_and_is_set_aside(caplog: pytest.LogCaptureFixture) -> None:
    store = DeadStore()
    MemoryStore._write(store, f"{KEY}:state", b'{"state": {"n": 100}}')
    learner = Learner(5)
    persistence = Persistence(learner, store, KEY)
    persistence.restore()
    store.alive = True
    assert persistence.save()
    assert learner.n == 100
    assert json.loads(store.read(f"{KEY}:unmerged") or b"")["state"] == {"n": 5}
    assert "merge_state" in caplog.text


@pytest.mark.parametrize("kept", [b"no JSON", b'{"state": {"m": 1}}', b"[]"])
def test_state_that_cannot_be_used_is_set_aside_and_the_component_starts_anew(
    kept: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    store, learner = MemoryStore(), Learner(3)
    store.write(f"{KEY}:state", kept)
    persistence = Persistence(learner, store, KEY)
    assert persistence.restore() is None
    assert persistence.save()
    assert learner.n == 3
    assert store.read(f"{KEY}:unreadable") == kept
    assert "starts anew" in caplog.text


def test_component_that_cannot_tell_its_state_is_told_of_once_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Learner):
        calls = 0

        def get_state(self) -> dict[str, Any]:
            self.calls += 1
            raise RuntimeError("no state today")

    broken = Broken()
    persistence = Persistence(broken, MemoryStore(), KEY, period_s=OFTEN)
    persistence.start()
    until(lambda: broken.calls > 3)
    assert not persistence.stop()
    assert caplog.text.count("RuntimeError: no state today") == 1


def test_state_with_a_number_that_is_none_is_not_saved() -> None:
    store = MemoryStore()
    learner = Learner()
    learner.n = float("nan")  # type: ignore[assignment]
    assert not Persistence(learner, store, KEY).save()
    assert store.read(f"{KEY}:state") is None


def test_stop_of_what_was_not_started_does_nothing() -> None:
    store = MemoryStore()
    assert Persistence(Learner(), store, KEY).stop()
    assert store.read(f"{KEY}:state") is None


def test_persistence_can_start_again_after_it_was_stopped() -> None:
    store, bandit = MemoryStore(), EpsilonGreedy(2)
    persistence = Persistence(bandit, store, KEY, sharing_period_s=OFTEN)
    for _ in range(3):
        persistence.start()
        persistence.start()
        learn(bandit, 5)
        assert persistence.stop()
    assert bandit.branch_tries == [15, 0]
    fresh = EpsilonGreedy(2)
    Persistence(fresh, store, KEY).restore()
    assert fresh.branch_tries == [15, 0]


@pytest.mark.parametrize("period_s", [0, -1, float("nan"), "often"])
def test_period_that_is_no_time_is_refused(period_s: Any) -> None:
    with pytest.raises(SettingsError, match="period_s"):
        Persistence(Learner(), MemoryStore(), KEY, period_s=period_s)


# -- whole objects -------------------------------------------------------------------------------------------------


def test_component_without_a_way_to_keep_its_state_says_what_to_write(caplog: pytest.LogCaptureFixture) -> None:
    persistence = Persistence(Plain(), store := MemoryStore(), KEY)
    assert "state of Plain is not kept" in caplog.text
    assert "get_state() and set_state(state)" in caplog.text
    persistence.start()
    assert persistence.restore() is None
    assert not persistence.save()
    assert persistence.stop()
    assert store.read(KEY) is None


def test_whole_object_is_kept_where_the_deployment_allows_it() -> None:
    store = MemoryStore()
    persistence = Persistence(Plain(4), store, KEY, allow_pickle=True)
    persistence.restore()
    assert persistence.save()
    again = Persistence(Plain(), store, KEY, allow_pickle=True)
    found = again.restore()
    assert isinstance(found, Plain)
    assert found.n == 4
    assert again.component is found
    found.n = 9
    assert again.save()
    assert pickle.loads(store.read(KEY) or b"").n == 9


@pytest.mark.parametrize("component", [Learner(1), EpsilonGreedy(2), Plain(1)], ids=["state", "counts", "neither"])
def test_old_pickle_is_not_loaded_and_not_overwritten_without_permission(
    component: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()
    old = b"cposix\nsystem\n(S'touch /tmp/owned'\ntR."
    store.write(KEY, old)
    persistence = Persistence(component, store, KEY)
    assert persistence.restore() is None
    persistence.save()
    assert store.read(KEY) == old
    assert "not loaded" in caplog.text or "not kept" in caplog.text


def test_old_pickle_of_a_component_that_has_a_state_now_is_taken_up_with_permission() -> None:
    store = MemoryStore()
    store.write(KEY, pickle.dumps(Learner(12)))
    persistence = Persistence(Learner(), store, KEY, allow_pickle=True)
    found = persistence.restore()
    assert isinstance(found, Learner)
    assert found.n == 12
    assert persistence.save()
    learner = Learner()
    Persistence(learner, store, KEY).restore()
    assert learner.n == 12


@pytest.mark.parametrize("old", [b"no pickle", pickle.dumps(OtherPlain(1))], ids=["broken", "of another class"])
def test_pickle_that_cannot_be_used_is_set_aside(old: bytes, caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    store.write(KEY, old)
    persistence = Persistence(Plain(2), store, KEY, allow_pickle=True)
    assert persistence.restore() is None
    assert persistence.save()
    assert store.read(f"{KEY}:unreadable") == old
    assert f"'{KEY}:unreadable'" in caplog.text


def test_object_that_was_out_of_reach_at_start_is_not_overwritten(caplog: pytest.LogCaptureFixture) -> None:
    store = DeadStore()
    MemoryStore._write(store, KEY, old := pickle.dumps(Plain(100)))
    persistence = Persistence(Plain(1), store, KEY, allow_pickle=True)
    assert persistence.restore() is None
    store.alive = True
    assert persistence.save()
    assert persistence.save()
    assert store.read(KEY) == old
    assert pickle.loads(store.read(f"{KEY}:unmerged") or b"").n == 1
    assert caplog.text.count("out of reach") == 1


def test_object_that_cannot_be_pickled_is_told_of_and_fails_nothing(caplog: pytest.LogCaptureFixture) -> None:
    persistence = Persistence(Locked(), MemoryStore(), KEY, allow_pickle=True)
    assert not persistence.save()
    assert "cannot pickle" in caplog.text


def test_component_without_names_leaves_the_state_of_another_where_it_is(caplog: pytest.LogCaptureFixture) -> None:
    class Other(Learner):
        pass

    store, key = MemoryStore(), state_key()
    first = Persistence(Learner(7), store, key)
    assert first.save()
    kept = store.read(f"{key}:state")
    for n in (0, 5):  # the second one finds what the first one has left
        other = Other()
        persistence = Persistence(other, store, key)
        assert persistence.restore() is None
        assert other.n == n
        other.n = 5
        assert persistence.save()
    assert store.read(f"{key}:state") == kept
    assert caplog.text.count(f"key '{key}' holds the state of Learner, which stays there") == 2
    assert "PREDICTIVE_UNIT_ID" in caplog.text


def test_component_without_names_goes_on_from_its_own_state(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    assert Persistence(Learner(7), store, state_key()).save()
    learner = Learner()
    Persistence(learner, store, state_key()).restore()
    assert learner.n == 7
    assert [record for record in caplog.records if record.levelname not in ("DEBUG", "INFO")] == []


def test_object_without_names_leaves_the_pickle_of_another_where_it_is() -> None:
    store, key = MemoryStore(), state_key()
    store.write(key, old := pickle.dumps(OtherPlain(1)))
    for n in (None, 2):
        persistence = Persistence(Plain(2), store, key, allow_pickle=True)
        found = persistence.restore()
        assert (found.n if found is not None else None) == n
        assert persistence.save()
    assert store.read(key) == old


def test_failure_of_get_state_is_one_line_with_its_place(caplog: pytest.LogCaptureFixture) -> None:
    class Unfit(Learner):
        def get_state(self) -> dict[str, Any]:
            return {"n": object()}

    class Failing(Learner):
        def get_state(self) -> dict[str, Any]:
            raise LookupError("no weights")

    for component, problem in ((Unfit(), "TypeError: $.state.n"), (Failing(), "LookupError: no weights (")):
        assert not Persistence(component, MemoryStore(), KEY).save()
        assert problem in caplog.messages[-1]
    assert f"{__file__}, line " in caplog.messages[-1]
    assert "Traceback" not in caplog.text


# -- a real Redis --------------------------------------------------------------------------------------------------

FEED = """
import sys
import numpy as np
from servegraph.serving.seldon.bandits import ThompsonSampling
from servegraph.serving.seldon.persistence import Persistence

uri, branch, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
bandit = ThompsonSampling(2)
persistence = Persistence(bandit, uri, "persistence_d_p_u", sharing_period_s=0.005)
persistence.restore()
persistence.start()
print("ready", flush=True)
sys.stdin.readline()
for i in range(rounds):
    bandit.route(None)
    bandit.send_feedback(np.zeros((1, 2)), [], float(i % 2), None, routing=branch)
sys.exit(0 if persistence.stop() else 1)
"""


@pytest.mark.parametrize("where", ["redis", "file"])
def test_two_processes_lose_none_of_ten_thousand_feedbacks(
    where: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    uri = request.getfixturevalue("redis").uri if where == "redis" else f"file://{tmp_path}/state"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", FEED, uri, str(branch), "5000"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for branch in (0, 1)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.communicate("go\n", timeout=60)
        assert worker.returncode == 0
    bandit = ThompsonSampling(2)
    Persistence(bandit, uri, KEY).restore()
    assert bandit.branch_tries == [5000, 5000]
    assert bandit.branch_success == [2500, 2500]


def test_workers_learn_from_each_other(redis: OwnRedis) -> None:
    bandits = [EpsilonGreedy(2, epsilon=0.0, best_branch=0) for _ in range(2)]
    persistences = [Persistence(bandit, redis.uri, KEY, sharing_period_s=OFTEN) for bandit in bandits]
    for persistence in persistences:
        persistence.restore()
        persistence.start()
    learn(bandits[0], 3, branch=1)
    until(lambda: bandits[1].branch_tries == [0, 3])
    assert bandits[1].route(ROW, []) == 1
    assert all(persistence.stop() for persistence in persistences)


@pytest.mark.parametrize("forgets", [False, True], ids=["Redis that remembers", "Redis that comes back empty"])
def test_redis_killed_under_load_fails_no_request_and_loses_no_feedback(redis: OwnRedis, forgets: bool) -> None:
    bandits = [EpsilonGreedy(2, seed=1) for _ in range(2)]
    persistences = [Persistence(bandit, redis.uri, KEY, sharing_period_s=OFTEN) for bandit in bandits]
    failures: list[BaseException] = []
    sent = [0, 0]
    ending = threading.Event()

    def load(which: int) -> None:
        while not ending.is_set():
            try:
                branch = bandits[which].route(ROW, [])
                bandits[which].send_feedback(ROW, [], 1.0, None, routing=branch)
                sent[which] += 1
            except Exception as exc:
                failures.append(exc)
            time.sleep(0.0005)

    for persistence in persistences:
        persistence.restore()
        persistence.start()
    threads = [threading.Thread(target=load, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        until(lambda: not any(persistence.failing for persistence in persistences))
        redis.kill()
        until(lambda: all(persistence.failing for persistence in persistences))
        if forgets:
            redis.forget()
        redis.start()
    until(lambda: not any(persistence.failing for persistence in persistences))
    ending.set()
    for thread in threads:
        thread.join()
    assert all(persistence.stop() for persistence in persistences)
    assert failures == []
    restarted = EpsilonGreedy(2)
    Persistence(restarted, redis.uri, KEY).restore()
    assert sum(restarted.branch_tries) == sum(sent) > 0


def test_redis_that_is_dead_at_start_is_only_a_warning_and_gets_everything_later(
    redis: OwnRedis, caplog: pytest.LogCaptureFixture
) -> None:
    earlier = Persistence(learner := EpsilonGreedy(2), redis.uri, KEY)
    learn(learner, 10)
    assert earlier.save()
    redis.kill()
    bandit = EpsilonGreedy(2)
    persistence = Persistence(bandit, redis.uri, KEY, sharing_period_s=OFTEN)
    with caplog.at_level(logging.WARNING):
        assert persistence.restore() is None
    assert f"127.0.0.1:{redis.port}" in caplog.text
    persistence.start()
    learn(bandit, 5)
    redis.start()
    until(lambda: bandit.branch_tries == [15, 0])
    assert persistence.stop()


def test_redis_that_stays_dead_does_not_keep_the_end_waiting(free_port: int, caplog: pytest.LogCaptureFixture) -> None:
    persistence = Persistence(EpsilonGreedy(2), f"redis://127.0.0.1:{free_port}/0", KEY)
    persistence.restore()
    persistence.start()
    assert not persistence.stop()
    assert "could not be saved" in caplog.text


def test_key_of_another_type_is_told_of_and_left_alone(redis: OwnRedis, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(redis.uri)
    store.write(f"{KEY}:counts", b"a string")
    store.update(f"{KEY}:state", lambda table: {"a": b"hash"})
    bandit, learner = EpsilonGreedy(2), Learner(1)
    learn(bandit, 1)
    for component in (bandit, learner):
        persistence = Persistence(component, redis.uri, KEY)
        persistence.restore()
        assert not persistence.save()
    assert (bandit.branch_tries, learner.n) == ([1, 0], 1)
    assert f"key '{KEY}:counts' holds something else" in caplog.text
    assert f"key '{KEY}:state' holds something else" in caplog.text
    assert store.read(f"{KEY}:counts") == b"a string"
    assert store.read_table(f"{KEY}:state") == {"a": b"hash"}
    store.close()
