from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph.serving.seldon.custom_metrics import (
    METHODS,
    CustomMetric,
    CustomMetrics,
    checked,
    create_counter,
    create_gauge,
    create_timer,
    is_valid,
)


class Sink:
    def __init__(self, *, full: bool = False) -> None:
        self.kept: list[tuple[CustomMetric, str]] = []
        self.rejected: list[str] = []
        self.full = full

    def record(self, metric: CustomMetric, method: str) -> None:
        if self.full:
            raise ValueError("there are 1000 metrics already")
        self.kept.append((metric, method))

    def reject(self, method: str) -> None:
        self.rejected.append(method)

    def feedback(self, reward: float) -> None:
        raise AssertionError("not here")


def counter(**changes: Any) -> dict[str, Any]:
    return {"type": "COUNTER", "key": "k", "value": 1, **changes}


def test_metrics_are_kept_and_shown_as_they_came() -> None:
    sink = Sink()
    given_metrics = [counter(), counter(type="GAUGE", value=-0.5), counter(type="TIMER", value=20.2)]
    assert CustomMetrics(sink).take(given_metrics, "predict") == given_metrics
    assert sink.kept == [
        (CustomMetric("COUNTER", "k", 1.0), "predict"),
        (CustomMetric("GAUGE", "k", -0.5), "predict"),
        (CustomMetric("TIMER", "k", 20.2), "predict"),
    ]


@pytest.mark.parametrize("operation", sorted(METHODS))
def test_method_is_shown_within_tags_that_the_component_gave_and_nowhere_else(operation: str) -> None:
    tags = {"stage": "x"}
    custom = CustomMetrics(Sink())
    shown = custom.take([counter(tags=tags), counter(), counter(tags={}), counter(tags=None)], operation)
    method = METHODS[operation]
    assert [metric.get("tags") for metric in shown] == [
        {"stage": "x", "method": method},
        None,
        {"method": method},
        None,
    ]
    assert tags == {"stage": "x"}


@pytest.mark.parametrize(
    "given_metrics",
    [[counter()], (counter(),), ([counter()],), counter()],
    ids=["a list", "a tuple", "a list in a tuple, from a trailing comma", "one metric"],
)
def test_metrics_in_other_wrappings_are_taken(given_metrics: Any) -> None:
    assert CustomMetrics(Sink()).take(given_metrics, "predict") == [counter()]


@pytest.mark.parametrize("given_metrics", [None, [], ()])
def test_no_metrics_are_none(given_metrics: Any) -> None:
    sink = Sink()
    assert CustomMetrics(sink).take(given_metrics, "predict") == []
    assert sink.rejected == []


@pytest.mark.parametrize(
    "value", [np.int64(3), np.float32(0.5), np.array(2), np.array([2.5]), np.bool_(True), True], ids=repr
)
def test_numbers_of_numpy_become_plain_ones(value: Any) -> None:
    metric, shown = checked(counter(value=value))
    assert metric.value == float(np.asarray(value).reshape(()))
    assert type(shown["value"]) in (int, float)
    assert shown["value"] == value


def test_tag_values_become_texts() -> None:
    metric, shown = checked(counter(tags={"a": 1, "b": None}))
    assert shown["tags"] == {"a": "1", "b": "None"}
    assert metric.tags == (("a", "1"), ("b", "None"))


BAD = [
    (7, "must be a dictionary"),
    ({}, "has no 'key' and no 'type' and no 'value'"),
    ({"key": "k", "value": 1}, "metric 'k' has no 'type'"),
    (counter(key=""), "must be a text that is not empty"),
    (counter(key=3), "must be a text that is not empty, got 3"),
    (counter(type="COUNTR"), "has the type 'COUNTR'; did you mean 'COUNTER'? valid: COUNTER, GAUGE, TIMER"),
    (counter(type=np.array([1, 2])), "has the type array"),
    (counter(value="1"), "must be a finite number, got '1'"),
    (counter(value=None), "must be a finite number"),
    (counter(value=math.nan), "must be a finite number, got nan"),
    (counter(value=10**400), "must be a finite number"),
    (counter(value=np.array([1, 2])), "must be a finite number"),
    (counter(value=np.array(["a"])), "must be a finite number"),
    (counter(value=-1), "never negative"),
    (counter(type="TIMER", value=-1), "never negative"),
    (counter(tags=["a"]), "tags of metric 'k' must be a dictionary"),
]


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_bad_metric_is_left_out_counted_and_logged_once(
    bad: Any, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Sink()
    custom = CustomMetrics(sink, component="Iris")
    with caplog.at_level(logging.WARNING, logger="servegraph"):
        for _ in range(3):
            assert custom.take([bad, counter()], "route") == [counter()]
    assert sink.rejected == ["router"] * 3
    assert len(sink.kept) == 3
    (record,) = caplog.records
    assert "custom metric of Iris left out" in record.getMessage()
    assert message in record.getMessage()


def test_fault_with_changing_values_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    custom = CustomMetrics(Sink())
    for i in range(1, 5):
        custom.take([counter(value=-i)], "predict")
    assert len(caplog.records) == 1


def test_number_of_logged_faults_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    custom = CustomMetrics(Sink())
    for i in range(500):
        custom.take([counter(key=f"k{i}", value="x")], "predict")
    assert len(caplog.records) == 200


def test_something_else_than_metrics_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    sink = Sink()
    assert CustomMetrics(sink).take("metrics", "predict") == []
    assert sink.rejected == ["predict"]
    assert "must be a list of metrics, got str" in caplog.text


def test_metric_that_the_sink_refuses_does_not_fail_the_call(caplog: pytest.LogCaptureFixture) -> None:
    sink = Sink(full=True)
    assert CustomMetrics(sink).take([counter()], "predict") == []
    assert sink.rejected == ["predict"]
    assert "1000 metrics already" in caplog.text


def test_callers_see_no_metrics_when_they_are_not_to() -> None:
    sink = Sink()
    assert CustomMetrics(sink, in_response=False).take([counter()], "predict") == []
    assert len(sink.kept) == 1


def test_metrics_without_a_sink_are_shown() -> None:
    custom = CustomMetrics()
    assert custom.take([counter(), "bad"], "predict") == [counter()]
    custom.sink.feedback(1.0)


def test_metrics_of_a_message_may_lack_what_protobuf_leaves_out() -> None:
    sink = Sink()
    custom = CustomMetrics(sink)
    metrics = [{"key": "a", "value": 2.0}, {"key": "b", "type": "GAUGE"}, {"value": 1}, "c"]
    custom.take_message(metrics, "predict")
    assert [metric for metric, _ in sink.kept] == [CustomMetric("COUNTER", "a", 2.0), CustomMetric("GAUGE", "b", 0.0)]
    assert len(sink.rejected) == 2
    custom.take_message(None, "predict")


@given(st.recursive(st.none() | st.integers() | st.text() | st.floats(), lambda c: st.lists(c) | st.tuples(c)))
def test_nothing_that_a_component_gives_raises(anything: Any) -> None:
    custom = CustomMetrics(Sink())
    assert custom.take(anything, "predict") == []
    custom.take_message(anything, "predict")


@given(st.fixed_dictionaries({}, optional={k: st.from_type(object) for k in ("type", "key", "value", "tags")}))
def test_no_dictionary_raises(metric: dict[str, Any]) -> None:
    CustomMetrics(Sink()).take([metric], "predict")


@pytest.mark.parametrize("create", [create_counter, create_gauge, create_timer])
def test_created_metrics_are_valid_and_numbers_alone_are_taken(create: Any) -> None:
    metric = create("k", 1)
    assert metric == {"key": "k", "type": create.__name__.removeprefix("create_").upper(), "value": 1}
    assert is_valid([metric])
    with pytest.raises(TypeError, match="must be a finite number, got 'x'"):
        create("k", "x")


@pytest.mark.parametrize("bad", [None, (), {}, [counter(value="x")], [{"key": "k"}]])
def test_is_valid_is_as_strict_as_components_tests_expect(bad: Any) -> None:
    assert is_valid([])
    assert not is_valid(bad)
