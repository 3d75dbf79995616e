"""Multi-armed bandits: routers that learn from feedback which branch answers best.

They are ordinary components: name one in ``servegraph microservice`` or in a deployment, with the parameters that
Seldon's routers have. A reward is the share of good answers in a batch, from 0 to 1: each row of the request counts as
one try. What is learnt is nothing but counts, so that any number of workers and replicas learn together when
persistence is on (`persistence.py`), and exactly what was fed back is counted, in whatever order and threads.
"""

from __future__ import annotations

import abc
import logging
import math
import random
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence, Sized
from operator import index
from typing import Any, Final, SupportsIndex

from servegraph.serving.seldon.errors import SeldonMicroserviceException

logger = logging.getLogger("servegraph.seldon.bandits")

HISTORY: Final = 10_000
"""How many of the last decisions are kept when ``history`` is on."""
_WHOLE: Final = 1e-6


class Bandit(abc.ABC):
    """What all bandits share: counting, and telling what was counted."""

    def __init__(
        self,
        n_branches: int | None,
        seed: int | None,
        branch_names: str | Sequence[str] | None,
        history: bool,
        verbose: bool,
    ) -> None:
        self.branch_names = _names(n_branches, branch_names)
        self.n_branches = len(self.branch_names)
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._own_success = [0.0] * self.n_branches
        self._own_tries = [0.0] * self.n_branches
        self._success = [0.0] * self.n_branches
        self._tries = [0.0] * self.n_branches
        self._others: dict[str, float] = {}
        self.branch_history: deque[int] | None = deque(maxlen=HISTORY) if history else None
        self.value_history: deque[list[float]] | None = deque(maxlen=HISTORY) if history else None
        self._level = logging.INFO if verbose else logging.DEBUG
        self._last = threading.local()

    # -- Seldon's methods -------------------------------------------------------------------------------------------

    def route(self, features: Any, names: Any = None) -> int:
        """The index of the branch that is to answer."""
        with self._lock:
            branch, values = self._choose()
            if self.branch_history is not None and self.value_history is not None:
                self.branch_history.append(branch)
                self.value_history.append(values)
        name = self.branch_names[branch]
        self._last.tags = {"branch": name}
        self._last.metrics = [{"type": "COUNTER", "key": "bandit_routes", "value": 1, "tags": {"branch": name}}]
        logger.log(self._level, "route to %s; values %s", name, values)
        return branch

    def send_feedback(
        self, features: Any, names: Any, reward: float, truth: Any = None, routing: int | None = None
    ) -> None:
        """Count a reward for the branch that answered.

        Raises:
            SeldonMicroserviceException: 400, the routing names no branch, or the reward is not between 0 and 1.
        """
        branch, share, rows = self._branch(routing), _share(reward), _rows(features)
        success = share * rows
        # On its way a reward was a 32-bit float: 0.9 of ten is nine.
        if abs(success - round(success)) <= _WHOLE * rows:
            success = round(success)
        with self._lock:
            self._own_success[branch] += success
            self._own_tries[branch] += rows
            self._success[branch] += success
            self._tries[branch] += rows
            self._learnt()
        self._last.tags = {}
        self._last.metrics = self._gauges()
        logger.log(self._level, "feedback for %s: %s of %s", self.branch_names[branch], success, rows)

    def tags(self) -> dict[str, Any]:
        """The branch that this thread has just chosen."""
        tags, self._last.tags = getattr(self._last, "tags", {}), {}
        return tags

    def metrics(self) -> list[dict[str, Any]]:
        """A count of the route that this thread has just chosen; what is known of all branches after feedback."""
        metrics, self._last.metrics = getattr(self._last, "metrics", []), []
        return metrics

    # -- what was learnt --------------------------------------------------------------------------------------------

    @property
    def branch_success(self) -> list[float]:
        """Good answers of each branch, of all workers together."""
        with self._lock:
            return list(self._success)

    @property
    def branch_tries(self) -> list[float]:
        """Answers of each branch that feedback came for, of all workers together."""
        with self._lock:
            return list(self._tries)

    @property
    def branch_values(self) -> list[float]:
        """The share of good answers of each branch; 0 for one that has not been tried."""
        with self._lock:
            return self._values()

    def get_counts(self) -> dict[str, float]:
        """What was fed back to this object itself."""
        with self._lock:
            pairs = enumerate(zip(self._own_success, self._own_tries, strict=True))
            return {f"{i}.{what}": n for i, pair in pairs for what, n in zip(("success", "tries"), pair, strict=True)}

    def set_shared_counts(self, counts: Mapping[str, float]) -> None:
        """Take note of what was fed back elsewhere: to other workers, and before this one was started."""
        with self._lock:
            if counts == self._others:
                return
            self._others = dict(counts)
            for i in range(self.n_branches):
                self._success[i] = self._own_success[i] + counts.get(f"{i}.success", 0)
                self._tries[i] = self._own_tries[i] + counts.get(f"{i}.tries", 0)
            self._learnt()

    # -- inside; the lock is held -----------------------------------------------------------------------------------

    @abc.abstractmethod
    def _choose(self) -> tuple[int, list[float]]:
        """A branch, and the values that spoke for it."""

    def _learnt(self) -> None:  # noqa: B027 - Thompson sampling works out nothing beforehand
        """The counts have changed."""

    def _values(self) -> list[float]:
        return [good / tries if tries else 0.0 for good, tries in zip(self._success, self._tries, strict=True)]

    def _branch(self, routing: Any) -> int:
        if (
            isinstance(routing, SupportsIndex)
            and not isinstance(routing, bool)
            and 0 <= index(routing) < self.n_branches
        ):
            return index(routing)
        raise SeldonMicroserviceException(
            f"feedback with routing {routing!r}: this router has branches 0 to {self.n_branches - 1}, and "
            "response.meta.routing of the feedback must say, under the router's name, which of them had answered",
            status_code=400,
        )

    def _gauges(self) -> list[dict[str, Any]]:
        with self._lock:
            known = list(zip(self.branch_names, self._success, self._tries, self._values(), strict=True))
        return [
            {"type": "GAUGE", "key": f"bandit_branch_{what}", "value": value, "tags": {"branch": name}}
            for name, success, tries, share in known
            for what, value in (("success", success), ("tries", tries), ("value", share))
        ]


class EpsilonGreedy(Bandit):
    """Routes to the best branch, but with a probability of ``epsilon`` to one of the others.

    Args:
        n_branches: how many branches there are; may be left out when all have names, and in a deployment, where it
            is how many children the node has.
        epsilon: the probability of another branch than the best.
        best_branch: the one to begin with; any one, when it is not given.
        verbose: whether decisions and feedback are logged at level INFO.
        seed: makes the decisions the same in every run.
        history: whether the last 10,000 decisions are kept, in ``branch_history`` and ``value_history``.
        branch_names: names for tags, metrics and the log, as ``"a:b"`` or a list.
        decay_after: the number of answers after which ``epsilon`` has gone down to a half; after twice as many it is a
            third, and so on. Without it a fixed share of requests goes to worse branches for ever.
        push_frequency: seconds between two savings; read by persistence.

    Raises:
        ValueError: an argument makes no sense.
    """

    def __init__(
        self,
        n_branches: int | None = None,
        epsilon: float = 0.1,
        best_branch: int | None = None,
        verbose: bool = False,
        seed: int | None = None,
        history: bool = False,
        branch_names: str | Sequence[str] | None = None,
        decay_after: float | None = None,
        push_frequency: float = 60.0,
    ) -> None:
        super().__init__(n_branches, seed, branch_names, history, verbose)
        self.epsilon = _number(epsilon, "epsilon", 0, 1)
        self.decay_after = None if decay_after is None else _number(decay_after, "decay_after", 1, math.inf)
        self.push_frequency = _number(push_frequency, "push_frequency", math.ulp(0.0), math.inf)
        if best_branch is None:
            self._best = self._random.randrange(self.n_branches)
        elif 0 <= int(best_branch) < self.n_branches:
            self._best = int(best_branch)
        else:
            raise ValueError(f"best_branch is {best_branch!r}; the branches are 0 to {self.n_branches - 1}")

    @property
    def best_branch(self) -> int:
        """The branch with the largest share of good answers; of several, any one."""
        with self._lock:
            return self._best

    def _choose(self) -> tuple[int, list[float]]:
        values = self._values()
        if self.n_branches == 1 or self._random.random() >= self._epsilon():
            return self._best, values
        other = self._random.randrange(self.n_branches - 1)
        return other + (other >= self._best), values

    def _epsilon(self) -> float:
        return self.epsilon if self.decay_after is None else self.epsilon / (1 + sum(self._tries) / self.decay_after)

    def _learnt(self) -> None:
        values = self._values()
        most = max(values)
        best = [i for i, value in enumerate(values) if value == most]
        self._best = best[0] if len(best) == 1 else self._random.choice(best)


class ThompsonSampling(Bandit):
    """Routes to a branch with the probability that it is the best one, given what was fed back.

    The share of good answers of each branch has a Beta distribution; each request draws one value from every one of
    them and goes where the largest is.

    Args:
        n_branches: how many branches there are; may be left out when all have names, and in a deployment, where it
            is how many children the node has.
        verbose: whether decisions and feedback are logged at level INFO.
        seed: makes the decisions the same in every run.
        history: whether the last 10,000 decisions are kept, in ``branch_history`` and ``value_history``.
        branch_names: names for tags, metrics and the log, as ``"a:b"`` or a list.
        alpha: good answers that each branch is credited with before the first one.
        beta: bad answers that each branch is charged with before the first one.
        push_frequency: seconds between two savings; read by persistence.

    Raises:
        ValueError: an argument makes no sense.
    """

    def __init__(
        self,
        n_branches: int | None = None,
        verbose: bool = False,
        seed: int | None = None,
        history: bool = False,
        branch_names: str | Sequence[str] | None = None,
        alpha: float = 1.0,
        beta: float = 1.0,
        push_frequency: float = 60.0,
    ) -> None:
        super().__init__(n_branches, seed, branch_names, history, verbose)
        self.alpha = _number(alpha, "alpha", math.ulp(0.0), math.inf)
        self.beta = _number(beta, "beta", math.ulp(0.0), math.inf)
        self.push_frequency = _number(push_frequency, "push_frequency", math.ulp(0.0), math.inf)

    def _choose(self) -> tuple[int, list[float]]:
        drawn = [
            self._random.betavariate(self.alpha + good, self.beta + max(tries - good, 0.0))
            for good, tries in zip(self._success, self._tries, strict=True)
        ]
        return drawn.index(max(drawn)), drawn


def _names(n_branches: int | None, branch_names: str | Sequence[str] | None) -> list[str]:
    names = branch_names.split(":") if isinstance(branch_names, str) else list(branch_names or ())
    if n_branches is None and not names:
        raise ValueError("a bandit needs the parameter n_branches: how many children its node has in the graph")
    count = len(names) if n_branches is None else int(n_branches)
    if count < 1:
        raise ValueError(f"n_branches is {n_branches!r}; a router has at least one branch")
    if names and len(names) != count:
        raise ValueError(f"branch_names {branch_names!r} are {len(names)} names for {count} branches; write 'a:b'")
    if len(set(names)) != len(names):
        raise ValueError(f"branch_names {branch_names!r}: two branches have one name")
    return [str(name) for name in names] or [str(i) for i in range(count)]


def _number(value: Any, name: str, least: float, most: float) -> float:
    number = float(value)
    if not (least <= number <= most and math.isfinite(number)):
        bounds = f"from {least:g} to {most:g}" if math.isfinite(most) else f"of at least {least:g}"
        raise ValueError(f"{name} is {value!r}; it is a number {bounds}")
    return number


def _share(reward: Any) -> float:
    try:
        share = float(reward)
    except (TypeError, ValueError):
        share = math.nan
    if not 0 <= share <= 1:
        raise SeldonMicroserviceException(
            f"feedback with reward {reward!r}: a reward is the share of good answers in the batch, from 0 to 1",
            status_code=400,
        )
    return share


def _rows(features: Any) -> int:
    """How many answers a reward is for: the rows of the request, or one when it held no rows."""
    shape = getattr(features, "shape", None)
    if shape is not None:
        return max(int(shape[0]), 1) if len(shape) else 1
    rows = isinstance(features, Sized) and isinstance(features, Iterable)
    return max(len(features), 1) if rows and not isinstance(features, (str, bytes, Mapping)) else 1
