"""Bandit routers: what they count, how they choose, and that they find the better branch."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from servegraph.serving.seldon.bandits import EpsilonGreedy, ThompsonSampling
from servegraph.serving.seldon.errors import SeldonMicroserviceException

Bandit = EpsilonGreedy | ThompsonSampling
BOTH = pytest.mark.parametrize("make", [EpsilonGreedy, ThompsonSampling])
ROW = np.zeros((1, 3))


@BOTH
def test_feedback_for_a_batch_counts_its_rows(make: Callable[..., Bandit]) -> None:
    bandit = make(n_branches=3, seed=1)
    bandit.send_feedback(np.zeros((10, 4)), ["a"], float(np.float32(0.9)), None, routing=1)
    bandit.send_feedback(np.zeros((4, 4)), ["a"], 0.0, None, routing=1)
    assert bandit.branch_success == [0, 9, 0]
    assert bandit.branch_tries == [0, 14, 0]
    assert bandit.branch_values == [0, 9 / 14, 0]


@BOTH
def test_feedback_with_a_reward_between_counts_a_part(make: Callable[..., Bandit]) -> None:
    bandit = make(n_branches=2)
    bandit.send_feedback(ROW, [], 0.25, None, routing=0)
    assert (bandit.branch_success, bandit.branch_tries) == ([0.25, 0], [1, 0])


@BOTH
@pytest.mark.parametrize(
    ("features", "rows"),
    [
        (np.array([]), 1),
        (np.array(3), 1),
        ([[1], [2]], 2),
        ([], 1),
        ("text", 1),
        (b"bytes", 1),
        ({"a": 1}, 1),
        (None, 1),
    ],
)
def test_feedback_counts_what_has_no_rows_as_one(make: Callable[..., Bandit], features: Any, rows: int) -> None:
    bandit = make(n_branches=2)
    bandit.send_feedback(features, [], 1.0, None, routing=0)
    assert bandit.branch_tries == [rows, 0]


@BOTH
@pytest.mark.parametrize("routing", [None, -1, -2, 2, True, "0", 0.5])
def test_feedback_without_a_branch_is_the_callers_fault(make: Callable[..., Bandit], routing: Any) -> None:
    bandit = make(n_branches=2)
    with pytest.raises(SeldonMicroserviceException, match=r"branches 0 to 1, and response\.meta\.routing") as caught:
        bandit.send_feedback(ROW, [], 1.0, None, routing=routing)
    assert caught.value.status_code == 400
    assert bandit.branch_tries == [0, 0]


@BOTH
@pytest.mark.parametrize("reward", [-0.1, 1.01, float("nan"), float("inf"), None, "good"])
def test_feedback_with_a_wrong_reward_is_the_callers_fault(make: Callable[..., Bandit], reward: Any) -> None:
    bandit = make(n_branches=2)
    with pytest.raises(SeldonMicroserviceException, match="from 0 to 1") as caught:
        bandit.send_feedback(ROW, [], reward, None, routing=0)
    assert caught.value.status_code == 400
    assert bandit.branch_tries == [0, 0]


@BOTH
def test_feedback_of_eight_threads_is_counted_exactly(make: Callable[..., Bandit]) -> None:
    bandit = make(n_branches=2, seed=3)

    def learn(branch: int) -> None:
        for i in range(1000):
            bandit.route(ROW, [])
            bandit.send_feedback(ROW, [], float(i % 4 == 0), None, routing=branch)

    threads = [threading.Thread(target=learn, args=(i % 2,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bandit.branch_tries == [4000, 4000]
    assert bandit.branch_success == [1000, 1000]


@BOTH
def test_route_is_an_int_and_the_same_for_the_same_seed(make: Callable[..., Bandit]) -> None:
    one, other = make(n_branches=5, seed=0), make(n_branches=5, seed=0)
    routes = [one.route(ROW, []) for _ in range(50)]
    assert all(type(route) is int and 0 <= route < 5 for route in routes)
    assert routes == [other.route(ROW, []) for _ in range(50)]


@BOTH
def test_route_with_one_branch_is_that_branch(make: Callable[..., Bandit]) -> None:
    bandit = make(n_branches=1)
    assert {bandit.route(ROW, []) for _ in range(20)} == {0}


def test_epsilon_greedy_explores_other_branches_as_often_as_epsilon_says() -> None:
    bandit = EpsilonGreedy(n_branches=4, epsilon=0.3, best_branch=2, seed=5)
    routes = [bandit.route(ROW, []) for _ in range(10_000)]
    assert routes.count(2) / len(routes) == pytest.approx(0.7, abs=0.02)
    assert all(routes.count(other) / len(routes) == pytest.approx(0.1, abs=0.02) for other in (0, 1, 3))


def test_epsilon_greedy_keeps_branch_zero_as_the_first_best() -> None:
    assert all(EpsilonGreedy(n_branches=3, best_branch=0, seed=seed).best_branch == 0 for seed in range(10))


def test_epsilon_greedy_follows_the_best_share() -> None:
    bandit = EpsilonGreedy(n_branches=2, epsilon=0.0, best_branch=0)
    bandit.send_feedback(ROW, [], 0.0, None, routing=0)
    bandit.send_feedback(ROW, [], 1.0, None, routing=1)
    assert bandit.best_branch == bandit.route(ROW, []) == 1


def test_thompson_sampling_prefers_what_its_prior_prefers_equally_at_first() -> None:
    bandit = ThompsonSampling(n_branches=2, seed=1, alpha=2, beta=5)
    routes = [bandit.route(ROW, []) for _ in range(4000)]
    assert routes.count(0) / len(routes) == pytest.approx(0.5, abs=0.03)


def _regret(bandit: Bandit, rates: list[float], rounds: int) -> list[float]:
    """What was lost, summed up, against always choosing the best branch."""
    world, lost, regret = random.Random(42), 0.0, []
    for _ in range(rounds):
        branch = bandit.route(ROW, [])
        bandit.send_feedback(ROW, [], float(world.random() < rates[branch]), None, routing=branch)
        lost += max(rates) - rates[branch]
        regret.append(lost)
    return regret


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: EpsilonGreedy(3, epsilon=0.5, decay_after=100, seed=seed),
        lambda seed: ThompsonSampling(3, seed=seed),
    ],
    ids=["epsilon greedy that decays", "Thompson sampling"],
)
def test_bandit_finds_the_better_branch_with_ever_less_regret(make: Callable[[int], Bandit]) -> None:
    rounds = 8000
    bandits = [make(seed) for seed in range(8)]
    regrets = [_regret(bandit, [0.3, 0.5, 0.7], rounds) for bandit in bandits]
    mean = np.mean(regrets, axis=0)
    assert all(int(np.argmax(bandit.branch_tries)) == 2 for bandit in bandits)
    # Linear regret would lose as much in the last quarter as in the first.
    assert mean[-1] - mean[3 * rounds // 4] < 0.25 * mean[rounds // 4]
    assert mean[-1] < 0.1 * 0.2 * rounds


def test_epsilon_greedy_without_decay_sends_most_requests_to_the_better_branch() -> None:
    bandit = EpsilonGreedy(2, epsilon=0.1, seed=7)
    _regret(bandit, [0.2, 0.6], 3000)
    assert bandit.best_branch == 1
    assert bandit.branch_tries[1] > 0.8 * 3000


@BOTH
def test_tags_and_metrics_tell_of_the_last_call_once(make: Callable[..., Bandit]) -> None:
    bandit = make(n_branches=2, branch_names="rf:xgb", seed=1)
    name = bandit.branch_names[bandit.route(ROW, [])]
    assert bandit.tags() == {"branch": name}
    assert bandit.metrics() == [{"type": "COUNTER", "key": "bandit_routes", "value": 1, "tags": {"branch": name}}]
    assert (bandit.tags(), bandit.metrics()) == ({}, [])
    bandit.send_feedback(ROW, [], 1.0, None, routing=1)
    told = {(metric["key"], metric["tags"]["branch"]): metric["value"] for metric in bandit.metrics()}
    assert (
        told["bandit_branch_tries", "xgb"]
        == told["bandit_branch_success", "xgb"]
        == told["bandit_branch_value", "xgb"]
        == 1
    )
    assert told["bandit_branch_tries", "rf"] == 0
    assert bandit.tags() == {}


@BOTH
def test_tags_of_one_thread_are_not_those_of_another(make: Callable[..., Bandit]) -> None:
    bandit = make(n_branches=2)
    bandit.route(ROW, [])
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append((bandit.tags(), bandit.metrics())))
    thread.start()
    thread.join()
    assert seen == [({}, [])]
    assert bandit.tags() != {}


@BOTH
def test_history_keeps_decisions_with_their_values(make: Callable[..., Bandit]) -> None:
    bandit = make(n_branches=2, history=True, seed=1)
    routes = [bandit.route(ROW, []) for _ in range(5)]
    assert bandit.branch_history is not None
    assert bandit.value_history is not None
    assert list(bandit.branch_history) == routes
    assert all(len(values) == 2 for values in bandit.value_history)
    assert make(n_branches=2).branch_history is None


@BOTH
def test_shared_counts_are_added_to_what_was_counted_here(make: Callable[..., Bandit]) -> None:
    bandit = make(n_branches=2)
    bandit.send_feedback(ROW, [], 1.0, None, routing=0)
    bandit.set_shared_counts({"0.tries": 4, "1.tries": 10, "1.success": 9, "7.tries": 1})
    assert (bandit.branch_tries, bandit.branch_success) == ([5, 10], [1, 9])
    bandit.set_shared_counts({"0.tries": 5})
    assert (bandit.branch_tries, bandit.branch_success) == ([6, 0], [1, 0])
    assert bandit.get_counts() == {"0.success": 1, "0.tries": 1, "1.success": 0, "1.tries": 0}


@BOTH
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs the parameter n_branches"),
        ({"n_branches": 0}, "at least one branch"),
        ({"n_branches": 2, "branch_names": "a:b:c"}, "3 names for 2 branches"),
        ({"branch_names": "a:a"}, "two branches have one name"),
    ],
)
def test_bandit_with_wrong_branches_says_what_is_wrong(
    make: Callable[..., Bandit], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(**arguments)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (EpsilonGreedy, {"epsilon": 1.5}, "from 0 to 1"),
        (EpsilonGreedy, {"best_branch": 2}, "the branches are 0 to 1"),
        (EpsilonGreedy, {"decay_after": 0}, "of at least 1"),
        (ThompsonSampling, {"alpha": 0}, "alpha"),
    ],
)
def test_bandit_with_a_wrong_number_names_its_bounds(
    make: Callable[..., Bandit], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(n_branches=2, **arguments)


def test_bandit_takes_its_number_of_branches_from_their_names() -> None:
    assert ThompsonSampling(branch_names=["a", "b", "c"]).n_branches == 3
