from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph.errors import GraphError
from servegraph.serving.seldon.signatures import takes_feedback, takes_lists, takes_little, takes_rows

X, NAMES, META = [[1.0, 2.0]], ["a", "b"], {"puid": "p"}


class Written:
    """Methods as users write them; each gives what it was called with."""

    def rows(self, X):  # type: ignore[no-untyped-def]
        return (X,)

    def rows_names(self, features, feature_names):  # type: ignore[no-untyped-def]
        return features, feature_names

    def rows_names_meta(self, X, names, meta):  # type: ignore[no-untyped-def]
        return X, names, meta

    def with_defaults(self, X, names=None, meta=None):  # type: ignore[no-untyped-def]
        return X, names, meta

    def any_keyword(self, X, names, **kw):  # type: ignore[no-untyped-def]
        return X, names, kw["meta"]

    def rows_and_any_keyword(self, X, **kw):  # type: ignore[no-untyped-def]
        return X, kw["meta"]

    def keyword_only_meta(self, X, names, *, meta):  # type: ignore[no-untyped-def]
        return X, names, meta

    def rows_and_meta_by_keyword(self, X, *, meta=None):  # type: ignore[no-untyped-def]
        return X, meta

    def meta_in_second_place(self, X, meta):  # type: ignore[no-untyped-def]
        return X, meta

    def meta_far_behind(self, X, names, threshold=0.5, meta=None):  # type: ignore[no-untyped-def]
        return X, names, threshold, meta

    def further_default(self, X, names, threshold=0.5):  # type: ignore[no-untyped-def]
        return X, names, threshold

    def by_place_only(self, X, names, /):  # type: ignore[no-untyped-def]
        return X, names

    def any_place(self, *args):  # type: ignore[no-untyped-def]
        return args

    def anything(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        return *args, kwargs["meta"]

    def only_meta(self, meta):  # type: ignore[no-untyped-def]
        return (meta,)

    @staticmethod
    def static(X, names):  # type: ignore[no-untyped-def]
        return X, names

    @classmethod
    def of_class(cls, X, names, meta=None):  # type: ignore[no-untyped-def]
        return X, names, meta


EXPECTED: dict[str, tuple[Any, ...]] = {
    "rows": (X,),
    "rows_names": (X, NAMES),
    "rows_names_meta": (X, NAMES, META),
    "with_defaults": (X, NAMES, META),
    "any_keyword": (X, NAMES, META),
    "rows_and_any_keyword": (X, META),
    "keyword_only_meta": (X, NAMES, META),
    "rows_and_meta_by_keyword": (X, META),
    "meta_in_second_place": (X, NAMES),  # what stands there gets the names, whatever it is called
    "meta_far_behind": (X, NAMES, 0.5, META),
    "further_default": (X, NAMES, 0.5),
    "by_place_only": (X, NAMES),
    "any_place": (X, NAMES),
    "anything": (X, NAMES, META),
    "only_meta": (X,),
    "static": (X, NAMES),
    "of_class": (X, NAMES, META),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_method_for_rows_is_called_with_what_it_takes(name: str) -> None:
    assert takes_rows(getattr(Written(), name), name)(X, NAMES, META) == EXPECTED[name]


def test_every_written_method_is_tested() -> None:
    assert set(EXPECTED) == {name for name in vars(Written) if not name.startswith("_")}


def test_partial_is_called_with_what_is_left() -> None:
    def with_model(model: str, X: Any, names: Any, meta: Any = None) -> Any:
        return model, X, names, meta

    assert takes_rows(functools.partial(with_model, "m"), "predict")(X, NAMES, META) == ("m", X, NAMES, META)
    assert takes_rows(functools.partial(with_model, "m", names=1), "predict")(X, NAMES, META) == ("m", X, 1, META)


def test_object_with_call_is_called_with_what_it_takes() -> None:
    class Model:
        def __call__(self, X: Any, names: Any) -> Any:
            return X, names

    assert takes_rows(Model(), "predict")(X, NAMES, META) == (X, NAMES)


# -- functions that do not tell what they take -------------------------------------------------------------------------


def test_function_in_c_is_called_with_as_much_as_it_takes() -> None:
    assert takes_rows(dict, "predict")([("a", 1)], NAMES, META) == {"a": 1}
    assert takes_rows(max, "predict")([3, 4], [1, 2], META) == [3, 4]
    assert takes_rows(print, "predict")("", [], META) is None


def test_error_of_python_code_inside_a_function_in_c_is_raised_and_the_code_called_once() -> None:
    calls = []

    class Row(list[int]):
        def __gt__(self, other: Any) -> bool:
            calls.append(other)
            raise TypeError("rows have no order")

    with pytest.raises(TypeError, match="rows have no order"):
        takes_rows(max, "predict")(Row([1]), Row([2]), META)
    assert len(calls) == 1


def test_wrapper_that_takes_anything_is_called_without_meta_once_it_has_refused_it() -> None:
    seen = []

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            seen.append(sorted(kwargs))
            return function(*args, **kwargs)

        return wrapper

    call = takes_rows(timed(lambda X, names: (X, names)), "predict")
    assert [call(X, NAMES, META) for _ in range(3)] == [(X, NAMES)] * 3
    assert seen == [["meta"], [], [], []]


def test_wrapper_of_a_function_with_a_similar_parameter_is_called_without_meta() -> None:
    def predict(X: Any, names: Any, metas: Any = None) -> Any:
        return X, metas

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return predict(*args, **kwargs)

    assert takes_rows(wrapper, "predict")(X, NAMES, META) == (X, None)


def test_wrapper_that_tells_what_it_wraps_is_called_once() -> None:
    calls = []

    def predict(X: Any, names: Any) -> Any:
        return X, names

    @functools.wraps(predict)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs)
        return predict(*args, **kwargs)

    assert takes_rows(wrapper, "predict")(X, NAMES, META) == (X, NAMES)
    assert calls == [{}]


def test_wrapper_of_send_feedback_is_called_without_routing_once_it_has_refused_it() -> None:
    def feedback(X: Any, names: Any, reward: float, truth: Any) -> Any:
        return reward

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return feedback(*args, **kwargs)

    assert takes_feedback(wrapper, "send_feedback")(X, NAMES, 0.5, None, 1) == 0.5


# -- errors inside -----------------------------------------------------------------------------------------------------


def failing(text: str, calls: list[int]) -> list[Callable[..., Any]]:
    def fail() -> Any:
        calls.append(1)
        raise TypeError(text)

    return [
        lambda X: fail(),
        lambda X, names: fail(),
        lambda X, names, meta=None: fail(),
        lambda X, names, **kw: fail(),
        lambda *args: fail(),
        lambda *args, **kw: fail(),
    ]


@pytest.mark.parametrize("position", range(6))
@pytest.mark.parametrize("text", ["unsupported operand", "got an unexpected keyword argument 'color'"])
def test_type_error_inside_is_raised_and_the_method_called_once(position: int, text: str) -> None:
    calls: list[int] = []
    method = failing(text, calls)[position]
    with pytest.raises(TypeError, match=text):
        takes_rows(method, "predict")(X, NAMES, META)
    assert calls == [1]


def test_unexpected_meta_inside_a_method_that_tells_what_it_takes_is_raised() -> None:
    calls = []

    def predict(X: Any, names: Any, meta: Any = None) -> Any:
        calls.append(1)
        return (lambda x: x)(X, meta=meta)  # type: ignore[call-arg]

    with pytest.raises(TypeError, match="unexpected keyword argument 'meta'"):
        takes_rows(predict, "predict")(X, NAMES, META)
    assert calls == [1]


# -- methods that cannot be called -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "text"),
    [
        (lambda: 1, r"predict\(\) takes no argument"),
        (lambda X, names, model: 1, r"predict\(\) needs an argument 'model' that no request has"),
        (lambda X, names, meta, model: 1, r"predict\(\) needs an argument 'model'"),
        (lambda X, *, threshold: 1, r"predict\(\) needs an argument 'threshold'"),
    ],
)
def test_method_that_nothing_can_call_is_told(method: Callable[..., Any], text: str) -> None:
    with pytest.raises(GraphError, match=text):
        takes_rows(method, "predict")


# -- the other operations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (lambda features, names: (features, names), ([X], [NAMES])),
        (lambda features: features, [X]),
        (lambda *args: args, ([X], [NAMES])),
        (lambda features, names, weights=1: (features, weights), ([X], 1)),
    ],
)
def test_aggregate_is_called_with_lists(method: Callable[..., Any], expected: Any) -> None:
    assert takes_lists(method, "aggregate")([X], [NAMES]) == expected


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (lambda X, names, reward, truth: (X, names, reward, truth), (X, NAMES, 0.5, [1])),
        (lambda X, names, reward, truth, routing: (reward, routing), (0.5, 2)),
        (lambda X, names, reward, truth, routing=None: (reward, routing), (0.5, 2)),
        (lambda X, names, reward, truth, *, routing: (truth, routing), ([1], 2)),
        (lambda X, names, reward, truth, **kw: kw, {"routing": 2}),
        (lambda *args, **kw: (len(args), kw), (4, {"routing": 2})),
        (lambda *args: len(args), 4),
        (lambda X, names, reward, routing: (reward, routing), (0.5, [1])),
        (lambda X, names, routing, reward, truth: (X, names, routing, reward, truth), (X, NAMES, 2, 0.5, [1])),
        (lambda X, names, truth, reward: (reward, truth), (0.5, [1])),
        (lambda X, names, truth, reward, *, routing: (reward, truth, routing), (0.5, [1], 2)),
        (lambda X, names, more=7, reward=0, truth=0: (more, reward, truth), (7, 0.5, [1])),
    ],
)
def test_send_feedback_is_called_with_or_without_routing(method: Callable[..., Any], expected: Any) -> None:
    assert takes_feedback(method, "send_feedback")(X, NAMES, 0.5, [1], 2) == expected


def test_aggregate_in_c_is_called_with_both_lists() -> None:
    assert takes_lists(max, "aggregate")([1], [2]) == [2]


def test_send_feedback_that_takes_too_little_or_too_much_is_told() -> None:
    with pytest.raises(GraphError, match="must take the values, their names, the reward and the truth"):
        takes_feedback(lambda X, names, reward: 1, "send_feedback")
    with pytest.raises(GraphError, match="needs an argument 'more'"):
        takes_feedback(lambda X, names, reward, truth, more: 1, "send_feedback")
    with pytest.raises(GraphError, match="needs an argument 'more'"):
        takes_feedback(lambda X, names, routing, reward, truth, more: 1, "send_feedback")


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (lambda: "none", "none"),
        (lambda values: values, X),
        (lambda values=None: values, None),  # it wants nothing, so it is given nothing
        (lambda *args: args, ()),
        (lambda **kw: kw, {}),
        (dict, {}),
    ],
)
def test_little_method_gets_the_values_only_where_it_needs_them(method: Callable[..., Any], expected: Any) -> None:
    assert takes_little(method, "tags")(X) == expected


def test_little_method_that_needs_more_is_told() -> None:
    with pytest.raises(GraphError, match=r"metrics\(\) needs an argument 'y_pred'"):
        takes_little(lambda y_true, y_pred: 1, "metrics")


# -- whatever is written -----------------------------------------------------------------------------------------------


@given(
    st.lists(st.sampled_from(["X", "names", "other", "meta"]), max_size=4, unique=True),
    st.integers(0, 4),
    st.booleans(),
    st.sampled_from(["", "meta", "meta=None", "*, meta", "*, meta=None", "**kw"]),
)
def test_method_of_any_signature_is_called_or_refused_before_the_first_request(
    names: list[str], defaults: int, star: bool, last: str
) -> None:
    places = [f"{n}=None" if i >= len(names) - defaults else n for i, n in enumerate(names)]
    if last == "meta" and any("=" in place for place in places):
        last = "meta=None"
    if star and not last.startswith("*, "):
        places.append("*args")
    code = f"lambda {', '.join([*places, *([last] if last else [])])}: True"
    try:
        method = eval(code)
    except SyntaxError:
        return
    try:
        call = takes_rows(method, "predict")
    except GraphError:
        return
    assert call(X, NAMES, META) is True
