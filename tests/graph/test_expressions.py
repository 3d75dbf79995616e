"""Expressions mean what they mean in Python, and can do nothing else."""

from __future__ import annotations

import contextlib
import copy
import fractions
import pickle
import re
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from servegraph.errors import GraphError
from servegraph.graph.expressions import (
    MAX_DEPTH,
    MAX_NODES,
    MAX_SOURCE,
    Expression,
    ExpressionError,
    compile_expression,
)

EVENT: dict[str, Any] = {
    "x": 2,
    "y": 0.5,
    "name": "abc",
    "a": [1, 2, 3],
    "d": {"k": "v", "n": None},
    "flag": True,
    "text": "",
}

_SAFE = {
    f.__name__: f
    for f in (len, str, int, float, bool, abs, min, max, round, sum, any, all, sorted)  # what they are in Python
}
_FAILURES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


_ATOMS = [
    *[f"event[{key!r}]" for key in [*EVENT, "missing"]],
    *["0", "1", "2", "3", "0.5", "1.5", "'a'", "'bc'", "''", "None", "True", "False", "event", "[]", "()", "{}"],
]
_SHAPES = [
    *[f"(@ {op} @)" for op in ("+", "-", "*", "/", "//", "==", "!=", "<", "<=", ">", ">=", "in", "not in")],
    *["(event['x'] % @)", "(event['y'] % @)", "(@ ** 2)", "(@ ** 3)", "(@ ** -1)", "(@ is None)", "(@ is not True)"],
    *["(@ < @ <= @)", "(@ == @ != @)", "(@ in @ not in @)", "(@ and @ or @)", "(@ or @ and @)", "(not @)"],
    *["(-@)", "(+@)", "(@ if @ else @)", "@[@]", "@[@:@]", "@[::-1]", "[@, @]", "(@,)", "(@, @)", "{@, @}"],
    *["{@: @, 'z': 1}", "min(@, @)", "max(@, @, @)", "round(@, @)", "int(@, @)", "sum(@, @)", "f'{@}-{@!r}'"],
    *[f"{name}(@)" for name in _SAFE],
]


@st.composite
def _sources(draw: st.DrawFn, depth: int = 4) -> str:
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(_ATOMS))
    shape = draw(st.sampled_from(_SHAPES))
    # An f-string can't hold a further one, nor its own kind of quotes, before Python 3.12.
    inner = st.sampled_from(["1", "0.5", "event", "[None, True]"]) if shape.startswith("f'") else _sources(depth - 1)
    return re.sub("@", lambda _: draw(inner), shape)


def _python(source: str) -> Any:
    """What Python itself makes of an expression: a value, or the exception."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of odd comparisons such as `1 is 1`
        try:
            return eval(source, {"__builtins__": {}, **_SAFE, "event": copy.deepcopy(EVENT)})
        except _FAILURES as error:
            return error


def _outcome(source: str) -> Any:
    try:
        return compile_expression(source)(copy.deepcopy(EVENT))
    except ExpressionError as error:
        return error


@given(_sources())
@example("event['x'] < 3 < 2 if False else 1 > 2 > event['missing']")
@example("False and event['missing'] or True or event['missing']")
def test_expression_any_safe_source_means_what_it_means_in_python(source: str) -> None:
    got = _outcome(source)
    if isinstance(got, ExpressionError):
        if re.search("limit|bits|sum adds numbers", str(got)):
            return  # refused on purpose; Python would compute it, however large
        assert type(got.__cause__) is type(_python(source))
    else:
        expected = _python(source)
        assert (type(got), repr(got)) == (type(expected), repr(expected))


@given(st.one_of(st.text(max_size=30), st.lists(st.sampled_from(
    ["event", "[", "]", "(", ")", ".", "__class__", "'x'", "lambda", ":", " for x in ", "*", "**", "{", "}", "f'", "'",
     "len", "get", ",", "=", ":=", "await ", "1", "9", "+", "\n", "\\", "#", "é", "\x00", "@", "import os"]
), max_size=25).map("".join)))  # fmt: skip
def test_expression_any_text_is_refused_or_runs_with_known_errors(source: str) -> None:
    with warnings.catch_warnings(), contextlib.suppress(GraphError):
        warnings.simplefilter("ignore")  # such as "invalid escape sequence"
        compile_expression(source)(copy.deepcopy(EVENT))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("(event['x'] * 3 > 1)", True),
        ("event['a'][0] + 1", 2),
        ("event['name'] in ['abc', 'b'] and not event['text']", True),
        ("'https://x/' + str(event['x'])", "https://x/2"),
        ("  event['x']  ", 2),
        ("(event['x'] +\n event['y'])", 2.5),
        ('f\'{event["name"]}-{event["x"]}-{event["name"]!r}\'', "abc-2-'abc'"),
        ("f'{{}}'", "{}"),
        ("get(event, 'missing')", None),
        ("get(event, '__class__')", None),
        ("get(event, 'missing', 7)", 7),
        ("get(event, 'missing', default=7)", 7),
        ("get(get(event, 'missing'), 'deeper', 8)", 8),
        ("get(event['a'], 5, 'none')", "none"),
        ("get(event['a'], 1)", 2),
        ("upper(event['name']) + lower('X')", "ABCx"),
        ("startswith(event['name'], 'ab')", True),
        ("startswith(event['name'], ['x', 'ab'])", True),
        ("endswith(event['name'], ('x', 'bc'))", True),
        ("json(event['d'])", '{"k":"v","n":null}'),
        ("sorted(event['a'], reverse=True)", [3, 2, 1]),
        ("max([], default=4)", 4),
        ("max(1, 5, 3)", 5),
        ("round(2.567, ndigits=1)", 2.6),
        ("round(2.5)", 2),
        ("sum(event['a'], start=10)", 16),
        ("int('ff', 16)", 255),
        ("int() + float()", 0.0),
        ("1 < event['x'] < 3 < 4", True),
        ("event['a'][1:]", [2, 3]),
        ("{'sum': sum(event['a'])}", {"sum": 6}),
        ("event is None or event['x']", 2),
        ("7 % 4", 3),
        ("2 ** -1", 0.5),
    ],
)
def test_expression_gives_the_value(source: str, expected: Any) -> None:
    got = compile_expression(source)(copy.deepcopy(EVENT))
    assert got == expected
    assert type(got) is type(expected)


def test_expression_several_names_take_values_in_their_order() -> None:
    expression = compile_expression("a - b['x']", names=("a", "b"))
    assert expression(5, {"x": 2}) == 3
    with pytest.raises(TypeError, match=r"takes 2 values \(a, b\), not 1"):
        expression(5)


def test_expression_display_is_new_for_each_call() -> None:
    expression = compile_expression("[1, {}]")
    expression(None)[1]["changed"] = True
    assert expression(None) == [1, {}]


def test_expression_name_of_a_function_may_be_taken_by_a_value() -> None:
    assert compile_expression("len + 1", names=("len",))(2) == 3
    with pytest.raises(GraphError, match="only functions can be called"):
        compile_expression("len(1)", names=("len",))


def test_expression_numpy_values_work() -> None:
    array = np.array([1.0, 2.0])
    assert compile_expression("event['x'][1] * 2 + sum(event['x'])")({"x": array}) == 7.0
    assert (compile_expression("event * 2")(array) == [2.0, 4.0]).all()
    assert compile_expression("event[:, 1]")(np.eye(2)).tolist() == [0.0, 1.0]


def test_expression_object_keeps_source_and_names() -> None:
    expression = compile_expression("event['x'] > 1")
    assert expression.source == "event['x'] > 1"
    assert repr(expression) == "Expression(\"event['x'] > 1\")"
    assert repr(compile_expression("a", ("a",))) == "Expression('a', names=('a',))"
    assert expression == Expression("event['x'] > 1")
    assert expression != compile_expression("event['x'] > 2")
    assert expression != "event['x'] > 1"
    assert len({expression, Expression("event['x'] > 1")}) == 1
    for again in (pickle.loads(pickle.dumps(expression)), copy.deepcopy(expression)):
        assert again == expression
        assert again({"x": 2}) is True


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("event.x", "column 1: attributes (.x) are not allowed; use an index instead: ['x']"),
        ("1 + event['é'].__class__", "column 5: attributes (.__class__) are not allowed"),
        ("  event.x", "column 3: attributes"),
        ("(1,\n  event.x)", "line 2, column 3: attributes"),
        ("event['x'].upper()", "column 1: attributes (.upper) are not allowed; call upper(...)"),
        ("evnt['x']", "column 1: the name 'evnt' is unknown; did you mean 'event'? valid: event"),
        ("__import__('os')", "the function '__import__' is unknown; valid: abs, all,"),
        ("lenn(event)", "did you mean 'len'?"),
        ("len", "'len' is a function; call it: len(...)"),
        ("event(1)", "only functions can be called; they are abs,"),
        ("(lambda: 1)()", "only functions can be called"),
        ("lambda: 1", "a lambda is not allowed; allowed: numbers, text,"),
        ("[x for x in event]", "column 1: a comprehension is not allowed"),
        ("{x for x in event}", "a comprehension is not allowed"),
        ("{x: 1 for x in event}", "a comprehension is not allowed"),
        ("any(x for x in event)", "a comprehension is not allowed"),
        ("(x := 1)", "column 2: an assignment (:=) is not allowed"),
        ("[*event]", "unpacking (*) is not allowed"),
        ("len(*event)", "unpacking (*) is not allowed"),
        ("{**event}", "unpacking (**) is not allowed"),
        ("json(**event)", "unpacking (**) is not allowed in json(...)"),
        ("sorted(event, key=len)", "the argument key= is not allowed in sorted(...); valid: reverse"),
        ("len()", "len(...) is called with a wrong number of values; it takes 1"),
        ("len(1, 2)", "it takes 1"),
        ("max()", "it takes 1 or more"),
        ("round(1, 2, ndigits=3)", "it takes 1 to 2"),
        ("round(1, ndigits=2, ndigits=3)", "it takes 1 to 2"),
        ("sorted([], reverse=1, reverse=0)", "a wrong number of values"),
        ("f'{event:>1000000000}'", "formats in an f-string are not allowed"),
        ("f'{event!a}'", "formats in an f-string are not allowed"),
        ("1 << 100", "the operator LShift is not allowed"),
        ("~1", "the operator Invert is not allowed"),
        ("1j", "the literal 1j is not allowed"),
        ("b'x'", "the literal b'x' is not allowed"),
        ("...", "the literal Ellipsis is not allowed"),
        ("await event", "await is not allowed"),
        ("event +", "expression 'event +': invalid syntax"),
        ("event = 1", "column 7"),
        ("import os", "column 1: invalid syntax"),
        ("", "an expression is empty"),
        (" \n", "an expression is empty"),
        ("'\ud800'", "can't be read"),
        ("\x00", "null bytes"),
    ],
)
def test_expression_what_is_not_allowed_is_refused_with_its_place(source: str, message: str) -> None:
    with pytest.raises(GraphError) as caught:
        compile_expression(source)
    assert message in str(caught.value)
    assert not isinstance(caught.value, ExpressionError)


@pytest.mark.parametrize("source", [None, 1, b"1", ["event"]])
def test_expression_that_is_no_string_is_refused(source: Any) -> None:
    with pytest.raises(GraphError, match="an expression must be a string"):
        compile_expression(source)


@pytest.mark.parametrize("names", ["event", ("a", "a"), ("1a",), ("class",), (1,)])
def test_expression_wrong_names_are_refused(names: Any) -> None:
    with pytest.raises(GraphError, match="name"):
        compile_expression("1", names)


@pytest.mark.parametrize(
    "source",
    [
        "-" * 4000 + "1",
        "[" * 4000,
        "[" * 150 + "]" * 150,
        "not " * 1000 + "1",
        "event" + "[0]" * 1300,
        "1" + "+1" * 2000,
        "1" + "+1" * MAX_DEPTH,
        "[" + "1," * MAX_NODES + "]",
        "1" + " " * MAX_SOURCE + "+1",
    ],
)
def test_expression_too_large_is_refused(source: str) -> None:
    with pytest.raises(GraphError):
        compile_expression(source)


def test_expression_at_the_limits_runs() -> None:
    assert compile_expression("1" + "+1" * (MAX_DEPTH - 1))(None) == MAX_DEPTH
    assert len(compile_expression("[" + "1," * (MAX_NODES - 1) + "]")(None)) == MAX_NODES - 1


@pytest.mark.parametrize(
    "source",
    [
        "9**9**9",
        "2**4097",
        "2**-5000",
        "event['big'] * event['big']",
        "event['half'] ** 100000",
        "[0] * 1000001",
        "1000001 * 'a'",
        "'a' * 1000 * 1001",
        "[[[0]*1000]*1000]*1000",
        "['a' * 1000] * 1001",
        "[event['many']] * 2",
        "event['long'] + 'x'",
        "event['many'] + [1]",
        "event['count'] * 'a'",
        "str([event['long']])",
        "f'{event[\"long\"]}x'",
        "f'{[event[\"long\"]]}'",
        "f'{[event[\"long\"]]!r}'",
        "json([event['many'], event['many']])",
        "round(1, -10**9)",
        "round(event['half'], 10**9)",
        "int('9' * 5000)",
        "float('9' * 5000)",
        "'%1000000000d' % 1",
        "event['name'] % 1",
        "sum([[1]], [])",
        "sum(['a'], '')",
    ],
)
def test_expression_that_would_make_something_huge_fails_at_once(source: str) -> None:
    event = {
        "big": 1 << 4000, "many": [0] * 1_000_000, "long": "x" * 1_000_000, "name": "%d",
        "half": fractions.Fraction(1, 2), "count": np.int64(10**9),
    }  # fmt: skip
    expression = compile_expression(source)
    started = time.monotonic()
    with pytest.raises(ExpressionError, match=r"limit|more than|at most|formatted|sum adds"):
        expression(event)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("source", "message", "cause"),
    [
        ("event['missing']", "expression \"event['missing']\" failed: KeyError: 'missing'", KeyError),
        ("event['a'][9]", "failed: IndexError: list index out of range", IndexError),
        ("event['name'] + 1", "failed: TypeError: can only concatenate str", TypeError),
        ("1 / (event['x'] - 2)", "failed: ZeroDivisionError: division by zero", ZeroDivisionError),
        ("2.0 ** 100000", "failed: OverflowError", OverflowError),
        ("lower(1)", "failed: TypeError", TypeError),
        ("{event}", "failed: TypeError: unhashable type", TypeError),
        ("int('x')", "failed: ValueError", ValueError),
    ],
)
def test_expression_that_fails_names_itself_and_the_cause(source: str, message: str, cause: type[Exception]) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(source)(EVENT)
    assert message in str(caught.value)
    assert type(caught.value.__cause__) is cause


def test_expression_long_source_is_shortened_in_messages() -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression("'" + "x" * 3000 + "' + 1")(None)
    assert len(str(caught.value)) < 400


class _Audit:
    """Records what the interpreter is asked to do while it is on; a hook can't be taken away again."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on:
            self.seen.append(event)


@pytest.fixture(scope="module")
def audit() -> Iterator[_Audit]:
    recorder = _Audit()
    yield recorder
    recorder.on = False


class _Trap:
    """An object in an event that notes whatever is done to it but being indexed."""

    def __init__(self) -> None:
        self.touched: list[str] = []

    def __getitem__(self, key: Any) -> Any:
        raise KeyError(key)

    def __call__(self, *arguments: Any) -> None:
        self.touched.append("call")

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):  # Python itself looks for special methods
            self.touched.append(name)
        raise AttributeError(name)


@pytest.mark.parametrize(
    "source",
    [
        "__import__('os').system('true')",
        "().__class__.__base__.__subclasses__()",
        "event.__class__.__init__.__globals__",
        "event['__class__']",
        "(lambda: event())()",
        "[c for c in ().__class__.__mro__[1].__subclasses__()]",
        "eval('1')",
        "exec('import os')",
        "open('/etc/passwd')",
        "compile('1', '', 'eval')",
        "getattr(event, 'touched')",
        "globals()",
        "f'{event.touched}'",
        "f'{event.__class__!r}'",
        "'{0.__class__}'.format(event)",
        "str.format('{0.touched}', event)",
        "event()",
        "event['x']()",
        "len.__self__",
        "(1).__class__",
        "breakpoint()",
        "print(1)",
        "type(event)",
        "sorted([event], key=event)",
        "max([1], key=event)",
        "(x := event)",
        "*event,",
        "1 if event.touched else 2",
        "event[event.touched]",
        "event @ event",
        "yield event",
        "import os",
        "1; import os",
        "1\nimport os",
        "#\nevent.touched",
        "print`1`",
    ],
)
def test_expression_hostile_source_never_executes(source: str, audit: _Audit) -> None:
    trap = _Trap()
    audit.seen.clear()
    audit.on = True
    try:
        with pytest.raises(GraphError):
            compile_expression(source)(trap)
    finally:
        audit.on = False
    assert trap.touched == []
    # Parsing is seen as "compile"; what would be run afterwards as "exec".
    assert not [e for e in audit.seen if e in {"exec", "import", "open", "os.system", "object.__getattr__"}]
