from __future__ import annotations

from typing import Any

import pytest

from servegraph.errors import GraphError
from servegraph.graph.policies import DEFAULT_POLICY, UNSET, StepPolicy, as_policy


def test_policy_by_default_changes_nothing() -> None:
    policy = StepPolicy()
    assert policy == DEFAULT_POLICY
    assert policy.plain
    assert policy.to_dict() == {}
    assert repr(policy) == "StepPolicy()"
    assert repr(UNSET) == "UNSET"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timeout_s", 0), ("timeout_s", -1), ("timeout_s", "1"), ("timeout_s", True), ("timeout_s", float("nan")),
        ("retries", -1), ("retries", 1.5), ("retries", None), ("retries", False), ("backoff_s", -0.1),
        ("backoff_s", None), ("backoff_max_s", -1), ("max_in_flight", 0), ("max_in_flight", 2.0),
    ],
)  # fmt: skip
def test_policy_with_a_wrong_number_names_the_field_and_the_value(field: str, value: Any) -> None:
    with pytest.raises(GraphError, match=field) as caught:
        StepPolicy(**{field: value})
    assert field in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"on_error": "ignore"}, "on_error is 'ignore'; valid: default, fail, fallback, skip"),
        ({"execution": "process"}, "execution is 'process'; valid: auto, inline, thread"),
        ({"on_error": "fallback"}, "go together"),
        ({"fallback": "x"}, "go together"),
        ({"on_error": "default"}, "go together"),
        ({"default": None}, "go together"),
    ],
)
def test_policy_that_does_not_fit_together_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError) as caught:
        StepPolicy(**fields)
    assert message in str(caught.value)


def test_policy_default_of_none_is_a_value() -> None:
    policy = StepPolicy(on_error="default", default=None)
    assert policy.default is None
    assert policy.to_dict() == {"on_error": "default", "default": None}


@pytest.mark.parametrize(
    ("fields", "plain"),
    [({"timeout_s": 1}, False), ({"retries": 1}, False), ({"max_in_flight": 2}, False), ({"on_error": "skip"}, True)],
)
def test_policy_that_has_to_wait_is_not_plain(fields: dict[str, Any], plain: bool) -> None:
    assert StepPolicy(**fields).plain is plain


def test_policy_of_a_mapping_round_trips() -> None:
    policy = StepPolicy(timeout_s=1.5, retries=2, on_error="fallback", fallback="b", max_in_flight=3)
    assert as_policy(policy.to_dict()) == policy
    assert as_policy(policy) is policy
    assert as_policy(None) is DEFAULT_POLICY
    assert repr(policy).startswith("StepPolicy(timeout_s=1.5, retries=2, on_error='fallback'")


def test_policy_with_an_array_as_default_can_be_shown() -> None:
    import numpy as np

    policy = StepPolicy(on_error="default", default=np.zeros(3))
    assert "array" in repr(policy)
    assert list(policy.to_dict()) == ["on_error", "default"]


def test_policy_of_something_else_is_refused() -> None:
    with pytest.raises(GraphError, match="did you mean 'retries'"):
        as_policy({"retry": 1})
    with pytest.raises(GraphError, match="not int"):
        as_policy(3)  # type: ignore[arg-type]
