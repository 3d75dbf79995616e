"""Where an enrichment router gets features from: `FeatureSource`, three sources, and the filling of what is missing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

from servegraph.errors import GraphError, StepError, UnprocessableError, closest
from servegraph.importing import import_object

STATISTICS: Final = ("mean", "max", "min", "std", "count")

Row = Sequence[Any] | Mapping[str, Any] | None
"""The features of one entity: values in the order of the source's ``features``, or by name; ``None`` if unknown."""
Statistics = Mapping[str, Mapping[str, float]]
"""For each numeric feature its mean, max, min, std and count."""


@runtime_checkable
class FeatureSource(Protocol):
    """Looks up features. May also have ``features``, their names in order, and ``statistics()`` for ``$mean`` etc."""

    def get(self, entities: list[dict[str, Any]]) -> Sequence[Row] | Awaitable[Sequence[Row]]:
        """For each entity (key names to values) its row of features; may be a coroutine function."""
        ...


class DictSource:
    """Features in a dict.

    Args:
        data: by the key's value (a tuple of them for several keys) the entity's features: a mapping, or values in the
            order of ``features``.
        key: the name of the key in an entity, or several names.
        features: the names of the features, in order; those of the first mapping when not given.
    """

    def __init__(
        self, data: Mapping[Any, Row], key: str | Sequence[str], features: Sequence[str] | None = None
    ) -> None:
        self.keys = (key,) if isinstance(key, str) else tuple(key)
        if not self.keys:
            raise GraphError("a feature source needs the name of at least one key")
        self._data = data
        first = next(iter(data.values()), None)
        if features is None and isinstance(first, Mapping):
            features = list(first)
        self.features: list[str] | None = list(features) if features is not None else None

    def get(self, entities: list[dict[str, Any]]) -> list[Row]:
        """The rows of these entities; ``None`` for those that are not in the dict."""
        return [self._data.get(_key(e, self.keys, i)) for i, e in enumerate(entities)]

    def statistics(self) -> dict[str, dict[str, float]]:
        """The statistics of the numeric features, over all entities."""
        if self.features is None:
            return {}
        rows = [as_values(row, self.features) for row in self._data.values() if row is not None]
        return {name: s for i, name in enumerate(self.features) if (s := _described(r[i] for r in rows))}


class DataFrameSource(DictSource):
    """Features in a pandas frame, read once; later changes of the frame are not seen.

    Args:
        frame: one row per entity.
        keys: the columns that are the key; the frame's index when not given.
        features: the columns that are features, in order; all that are no key when not given.
    """

    def __init__(self, frame: Any, keys: str | Sequence[str] | None = None, features: Sequence[str] | None = None):
        if keys is not None:
            wanted = [keys] if isinstance(keys, str) else list(keys)
            for name in wanted:
                if name not in frame.columns:
                    raise GraphError(f"the frame has no key column {name!r}; {closest(name, map(str, frame.columns))}")
            frame = frame.set_index(wanted)
        names = [n for n in frame.index.names if n is not None]
        if len(names) != len(frame.index.names):
            raise GraphError("the frame's index has no name: name it, or give keys= (columns)")
        if not frame.index.is_unique:
            raise GraphError(f"the frame has several rows for one key ({', '.join(map(str, names))})")
        chosen = list(frame.columns if features is None else features)
        for name in chosen:
            if name not in frame.columns:
                raise GraphError(f"the frame has no column {name!r}; {closest(str(name), map(str, frame.columns))}")
        rows = list(frame[chosen].itertuples(index=False, name=None))
        index = list(frame.index)
        if frame.index.nlevels == 1 and len(index) and isinstance(index[0], tuple):
            index = [k[0] if len(k) == 1 else k for k in index]
        super().__init__(dict(zip(index, rows, strict=True)), [str(n) for n in names], [str(c) for c in chosen])


class CallableSource:
    """A function as a source: it gets the list of entities and gives a list of rows; may be a coroutine function.

    Args:
        function: the function.
        features: the names of the features, in order, where it gives lists.
    """

    def __init__(self, function: Callable[[list[dict[str, Any]]], Any], features: Sequence[str] | None = None) -> None:
        self.function = function
        self.features = list(features) if features is not None else None
        self.get = function


def as_source(given: Any, router: str) -> FeatureSource:
    """The source that an argument means: a source, a function, a class of one, or the name of any of them.

    Raises:
        GraphError: it is none of these.
    """
    if isinstance(given, str):
        given = import_object(given)
    if isinstance(given, type):
        given = given()
    if isinstance(given, Mapping) or not callable(getattr(given, "get", None)):
        if callable(given):
            return CallableSource(given)
        raise GraphError(
            f"{router}: feature_source is {type(given).__name__}; give a function, an object with get(entities), "
            "or a DictSource or DataFrameSource around your data"
        )
    if type(given).__module__.partition(".")[0] == "pandas":
        raise GraphError(f"{router}: feature_source is a pandas object: wrap it, as DataFrameSource(frame, keys=...)")
    return given  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Imputation:
    """What stands in for missing values."""

    values: Mapping[str, Any]
    """By feature."""
    other: Any = None
    """For features that are not named, where there is one."""
    has_other: bool = False

    def covers(self, names: Iterable[str]) -> bool:
        """Whether there is a value for each of these features."""
        return self.has_other or all(n in self.values for n in names)

    def fill(self, values: Sequence[Any], names: Sequence[str]) -> list[Any]:
        """The values, with what is missing filled in where there is something to fill it with."""
        return [
            self._value(name) if is_missing(v) and self.covers([name]) else v
            for v, name in zip(values, names, strict=True)
        ]

    def _value(self, name: str) -> Any:
        return self.values.get(name, self.other)


def read_policy(policy: Mapping[str, Any] | None, source: FeatureSource, router: str) -> Imputation:
    """An impute policy with its statistics looked up.

    Args:
        policy: by feature, or ``*`` for the others, a constant or one of ``$mean``, ``$max``, ``$min``, ``$std`` and
            ``$count``.
        source: the source whose statistics are meant.
        router: the router's name, for messages.

    Raises:
        GraphError: a statistic or a feature is unknown, or the source has no statistics.
    """
    if not policy:
        return Imputation({})
    features = getattr(source, "features", None)
    wanted = {name: _statistic(value, router) for name, value in policy.items()}
    described = _statistics(source, router) if any(wanted.values()) else {}
    values: dict[str, Any] = {}
    for name, statistic in wanted.items():
        if name == "*":
            continue
        if features is not None and name not in features:
            raise GraphError(f"{router}: impute_policy names {name!r}, which is no feature; {closest(name, features)}")
        if statistic is None:
            values[name] = policy[name]
        elif name not in described:
            raise GraphError(f"{router}: impute_policy wants ${statistic} of {name!r}, which has no statistics")
        else:
            values[name] = described[name][statistic]
    statistic = wanted.get("*")
    if "*" not in policy or statistic is None:
        return Imputation(values, policy.get("*"), "*" in policy)
    for name in described:
        values.setdefault(name, described[name][statistic])
    return Imputation(values)


def _statistic(value: Any, router: str) -> str | None:
    if not isinstance(value, str) or not value.startswith("$"):
        return None
    if value[1:] not in STATISTICS:
        raise GraphError(f"{router}: impute_policy has {value!r}; {closest(value, ['$' + s for s in STATISTICS])}")
    return value[1:]


def _statistics(source: FeatureSource, router: str) -> Statistics:
    tell = getattr(source, "statistics", None)
    if not callable(tell):
        raise GraphError(
            f"{router}: impute_policy uses statistics, and {type(source).__name__} has no statistics() method: "
            "give one, or constants"
        )
    described: Statistics = tell()
    return described


# -- rows -----------------------------------------------------------------------------------------------------------


def as_values(row: Row, names: Sequence[str] | None) -> list[Any]:
    """A row as a list in the order of the features.

    Raises:
        StepError: it does not fit the names.
    """
    if isinstance(row, Mapping):
        if names is None:
            return list(row.values())
        return [row.get(name) for name in names]
    if isinstance(row, (str, bytes)) or row is None:
        raise StepError(f"a feature source gave {type(row).__name__} as a row; it gives lists or mappings")
    values = list(row)
    if names is not None and len(values) != len(names):
        raise StepError(f"a feature source gave a row of {len(values)} values for {len(names)} features")
    return values


def is_missing(value: Any) -> bool:
    """Whether a value is ``None``, NaN or pandas' NA or NaT."""
    if value is None:
        return True
    if isinstance(value, float):
        return math.isnan(value)
    return type(value).__name__ in ("NAType", "NaTType") or (getattr(value, "ndim", None) == 0 and bool(value != value))


def _described(values: Iterable[Any]) -> dict[str, float] | None:
    """The statistics of a feature; ``None`` if it is not numeric."""
    present = [v for v in values if not is_missing(v)]
    if not present or any(isinstance(v, (bool, str, bytes)) or not hasattr(v, "__float__") for v in present):
        return None
    numbers = [float(v) for v in present]
    return {
        "mean": statistics.fmean(numbers),
        "max": max(numbers),
        "min": min(numbers),
        "std": statistics.stdev(numbers) if len(numbers) > 1 else 0.0,
        "count": float(len(numbers)),
    }


def _key(entity: Mapping[str, Any], keys: Sequence[str], index: int) -> Hashable:
    missing = [k for k in keys if k not in entity]
    if missing:
        raise UnprocessableError(f"$.inputs[{index}]: an entity needs {', '.join(keys)}; missing: {', '.join(missing)}")
    values = tuple(entity[k] for k in keys)
    for name, value in zip(keys, values, strict=True):
        if not isinstance(value, Hashable) or isinstance(value, tuple):
            raise UnprocessableError(f"$.inputs[{index}].{name}: {type(value).__name__} is no key")
    return values[0] if len(values) == 1 else values
