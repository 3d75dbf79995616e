from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph.errors import GraphError, UnprocessableError
from servegraph.graph.builtin import ChoiceByField, Extend, Filter, Map, Merge
from servegraph.graph.events import DROP, Event


def test_filter_passes_the_very_body_or_drops_it() -> None:
    body = {"x": 1}
    assert Filter(lambda b: True).do(body) is body
    assert Filter(lambda b: 0).do(body) is DROP


def test_map_replaces_the_body() -> None:
    assert Map(lambda b: b + 1).do(1) == 2


def test_extend_adds_keys_to_a_new_object() -> None:
    body = {"a": 1, "b": 1}
    assert Extend(lambda b: {"b": b["a"] + 1, "c": 3}).do(body) == {"a": 1, "b": 2, "c": 3}
    assert body == {"a": 1, "b": 1}
    with pytest.raises(UnprocessableError, match="not list"):
        Extend(lambda b: {}).do([1])


@pytest.mark.parametrize(("value", "names"), [("a", ["a"]), (["a", "b"], ["a", "b"]), (("a",), ["a"])])
def test_choice_by_field_gives_the_names(value: Any, names: list[str]) -> None:
    assert ChoiceByField("go").select_outlets({"go": value}) == names


@pytest.mark.parametrize(
    "body", [{}, {"go": None}, {"go": ""}, {"go": []}, {"go": [1]}, {"go": [""]}, {"go": 3}, [1], None]
)
def test_choice_by_field_without_names_is_422(body: Any) -> None:
    with pytest.raises(UnprocessableError, match="'go'"):
        ChoiceByField("go").select_outlets(body)


@pytest.mark.parametrize("options", [{"expected_num_events": 0}, {"expected_num_events": -1}, {"max_behind": 0}])
def test_merge_with_a_number_that_makes_no_sense_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(GraphError, match="at least 1"):
        Merge(**options)  # type: ignore[arg-type]


def test_merge_with_a_key_or_a_subclass_with_one_joins_across_requests() -> None:
    class Own(Merge):
        def get_join_key(self, event: Event) -> Any:
            return event.key

    assert not Merge().across_requests
    assert Merge(key_path="event['k']").across_requests
    assert Own().across_requests


def test_merge_function_gives_the_bodies_in_order_and_keeps_the_last_event() -> None:
    events = [Event({"i": i}, path=f"/{i}") for i in range(3)]
    merged = Merge().merge_function(events[-1], events)
    assert merged.body == [{"i": 0}, {"i": 1}, {"i": 2}]
    assert merged.path == "/2"
    shared = {"n": 1}
    bodies = Merge().merge_function(Event(), [Event(shared), Event(shared), Event(5), Event(5)]).body
    assert bodies == [shared, shared, 5, 5]
    assert bodies[0] is not bodies[1]


@given(st.lists(st.integers(0, 8), max_size=60), st.integers(1, 4), st.integers(1, 5))
def test_merge_keeps_no_more_sets_than_it_may_and_loses_none_silently(
    keys: list[int], expected: int, max_behind: int
) -> None:
    told: list[str] = []
    context = SimpleNamespace(push_error=lambda event, message, source: told.append(message))
    merge = Merge(key_path="event['k']", max_behind=max_behind, context=context, name="m")
    passed_on = refused = 0
    for i, key in enumerate(keys):
        try:
            merged = merge.collect(Event({"k": key, "i": i}), expected)
        except UnprocessableError:
            refused += 1
            continue
        assert len(merge._sets) <= max_behind
        assert len(merge._given_up) <= max_behind
        if merged is not None:
            passed_on += 1
            assert len(merged.body) == expected
            assert {b["k"] for b in merged.body} == {key}
            assert [b["i"] for b in merged.body] == sorted(b["i"] for b in merged.body)
    waiting = sum(len(parts) for parts in merge._sets.values())
    given_up = sum(int(text.split(" with ")[1].split(" of ")[0]) for text in told)
    assert passed_on * expected + waiting + given_up + refused == len(keys)
