"""How the predictions of several models become one: weights, and the three kinds of vote.

Pure functions of rows and weights; what a request or a route is, is not known here. Sums are exact (whole numbers)
or correctly rounded (`math.fsum`), so that the order of the models changes no result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from servegraph.errors import GraphError, StepError, closest

VOTE_TYPES: Final = ("classification", "regression", "soft")
_EXACT = 2**53  # whole numbers up to this are exact as floats

Vote = Callable[[Sequence[Sequence[Any]], Sequence[float]], list[Any]]
"""A function of (rows of one prediction per model, weights of the models) that gives one result per row."""


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each model counts."""

    given: Mapping[str, float] | None
    """As declared; ``None`` where nothing was."""
    whole: Mapping[str, int]
    """In the same proportions as whole numbers, so that equal sums are seen as equal (0.1 + 0.2 against 0.3)."""

    def normalised(self, models: Sequence[str]) -> list[float]:
        """The weights of these models in their order; together they are 1."""
        total = sum(self.whole[m] for m in models)
        return [float(Fraction(self.whole[m], total)) for m in models]

    def of(self, models: Sequence[str]) -> list[int] | list[float]:
        """The weights of these models in their order, in any scale: for sums that are compared or divided."""
        whole = [self.whole[m] for m in models]
        return whole if max(whole, default=0) <= _EXACT else self.normalised(models)


def read_weights(given: Mapping[str, float] | None, models: Sequence[str], missing: float | None, name: str) -> Weights:
    """The weights of an ensemble's models, checked.

    Args:
        given: weight by route key, or by model name where one version of it is there; equal weights when ``None``.
        models: the route keys.
        missing: the weight of models that are not named; ``None`` refuses to leave one out.
        name: the ensemble's name, for messages.

    Raises:
        GraphError: a model is unknown or left out, a weight is no number of 0 or above, or all are 0.
    """
    if given is None:
        return Weights(None, dict.fromkeys(models, 1))
    if not isinstance(given, Mapping):
        raise GraphError(f"{name}: weights must be a mapping of models to numbers, not {type(given).__name__}")
    exact: dict[str, Fraction] = {}
    for model, weight in given.items():
        exact[_route_key(model, models, name)] = _fraction(weight, f"{name}: the weight of {model!r}")
    left_out = [m for m in models if m not in exact]
    if left_out and missing is None:
        raise GraphError(f"{name}: weights leave out {', '.join(left_out)}; name them or set missing_weight")
    if missing is not None:
        exact.update(dict.fromkeys(left_out, _fraction(missing, f"{name}: missing_weight")))
    if models and not any(exact.values()):
        raise GraphError(f"{name}: the weights are all 0")
    scale = math.lcm(*(w.denominator for w in exact.values()))
    return Weights(dict(given), {m: int(exact[m] * scale) for m in models})


def _route_key(model: str, models: Sequence[str], name: str) -> str:
    if model in models:
        return model
    versions = [m for m in models if m.partition(":")[0] == model]
    if len(versions) == 1:
        return versions[0]
    raise GraphError(f"{name}: weights name {model!r}, which is no route; {closest(str(model), versions or models)}")


def _fraction(weight: Any, what: str) -> Fraction:
    weight = plain_value(weight)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight) or weight < 0:
        raise GraphError(f"{what} must be a number of 0 or above, not {weight!r}")
    return Fraction(repr(weight))  # the decimal number as it was written


# -- predictions ----------------------------------------------------------------------------------------------------


def plain_value(value: Any) -> Any:
    """A numpy scalar as the Python value that it stands for; anything else as it is."""
    return value.item() if hasattr(value, "dtype") and getattr(value, "ndim", None) == 0 else value


def plain_rows(value: Any) -> list[Any] | None:
    """A model's predictions as a list of Python values, one for each row; ``None`` if they are no rows.

    Arrays, series and frames become lists; rows that hold a single value (``[[0], [1]]``) become that value.
    """
    to_list = getattr(value, "tolist", None) or getattr(getattr(value, "values", None), "tolist", None)
    if to_list is not None:
        value = to_list()
    if not isinstance(value, (list, tuple)):
        return None
    rows = [plain_value(v) if not hasattr(v, "tolist") else v.tolist() for v in value]
    if rows and all(isinstance(r, (list, tuple)) and len(r) == 1 for r in rows):
        rows = [plain_value(r[0]) for r in rows]
    return rows


def infer_vote_type(predictions: Mapping[str, Sequence[Any]]) -> str:
    """Classification where all predictions are whole numbers, strings or booleans; regression where one is a float.

    Raises:
        StepError: they are something else; the message names the model.
    """
    kinds: set[type] = set()
    for model, rows in predictions.items():
        found = {type(row) for row in rows}
        strange = sorted(t.__name__ for t in found - {int, str, bool, float})
        if strange:
            raise StepError(
                f"model {model!r} predicts {', '.join(strange)}, which tells no kind of vote; "
                f"set vote_type to one of: {', '.join(VOTE_TYPES)}"
            )
        kinds |= found
    if float not in kinds:
        return "classification"
    if str in kinds:
        raise StepError("some models predict numbers with fractions and some text; set vote_type")
    return "regression"


# -- votes ----------------------------------------------------------------------------------------------------------


def majority(rows: Sequence[Sequence[Hashable]], weights: Sequence[float]) -> list[Any]:
    """For each row the label with the most weight behind it; of equals, that of the first model."""
    return [_winner(labels, weights) for labels in rows]


def _winner(labels: Sequence[Hashable], weights: Sequence[float]) -> Hashable:
    votes: dict[Hashable, float] = {}
    try:
        for label, weight in zip(labels, weights, strict=True):
            votes[label] = votes.get(label, 0) + weight
    except TypeError as exc:
        raise StepError(f"a classification vote needs labels, not {type(label).__name__}; set vote_type") from exc
    return max(votes, key=votes.__getitem__)  # the first of equals


def mean(rows: Sequence[Sequence[Any]], weights: Sequence[float]) -> list[Any]:
    """For each row the weighted mean; of predictions with several values, the mean of each."""
    total = math.fsum(weights)
    return [_mean(row, weights, total) for row in rows]


def _mean(values: Sequence[Any], weights: Sequence[float], total: float) -> Any:
    first = values[0]
    if isinstance(first, (list, tuple)):
        if any(not isinstance(v, (list, tuple)) or len(v) != len(first) for v in values):
            raise StepError("the models' predictions for one row differ in length")
        return [_mean([plain_value(p) for p in parts], weights, total) for parts in zip(*values, strict=True)]
    if not all(isinstance(v, (int, float)) for v in values):
        strange = next(type(v).__name__ for v in values if not isinstance(v, (int, float)))
        raise StepError(f"a mean needs numbers, not {strange}; for labels set vote_type='classification'")
    # A model without weight doesn't count, even where it predicts NaN or infinity.
    parts = [w * v for w, v in zip(weights, values, strict=True) if w]
    try:
        return math.fsum(parts) / total
    except (OverflowError, ValueError):  # beyond the largest float; infinities of both signs
        return sum(map(float, parts)) / total


def soft(rows: Sequence[Sequence[Any]], weights: Sequence[float]) -> list[list[float]]:
    """For each row the weighted mean of the models' probabilities, class by class."""
    for row in rows:
        for probabilities in row:
            if not isinstance(probabilities, (list, tuple)):
                raise StepError(
                    f"a soft vote needs a list of class probabilities for each row, not {type(probabilities).__name__}"
                )
    return mean(rows, weights)


def best_class(probabilities: Sequence[float], classes: Sequence[Any] | None) -> Any:
    """The most probable class: its label, or its index where there are no labels; the first of equals.

    Raises:
        StepError: there are not as many probabilities as classes.
    """
    if classes is not None and len(classes) != len(probabilities):
        raise StepError(f"the models give {len(probabilities)} probabilities a row for {len(classes)} classes")
    if not probabilities:
        raise StepError("the models give rows of no probabilities")
    index = max(range(len(probabilities)), key=probabilities.__getitem__)
    return index if classes is None else classes[index]


VOTES: Final[Mapping[str, Vote]] = {"classification": majority, "regression": mean, "soft": soft}
