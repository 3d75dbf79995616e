"""The expressions a spec may hold, such as ``"(event['x'] * 3 > 1)"``: a small part of Python, and never `eval`.

The text is parsed, every node is checked against what is allowed, and what remains is a tree of closures that is
called for each event. There are no attributes, so there is no way from a value to its class; there are no names
but those given, and no functions but the table below. Sizes are bounded: a spec can't make a worker compute or
hold something enormous with a few characters.
"""

from __future__ import annotations

import ast
import keyword
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any, Final, NoReturn

from servegraph.errors import GraphError, closest
from servegraph.graph.expression_functions import (
    BINARY,
    COMPARISONS,
    FUNCTIONS,
    UNARY,
    Function,
    bounded,
    representation,
    text,
)

MAX_SOURCE: Final = 4096
"""Characters of an expression."""
MAX_DEPTH: Final = 50
"""Operations inside each other."""
MAX_NODES: Final = 500
"""Values and operations in one expression."""

_ALLOWED = (
    "allowed: numbers, text, None, True, False, lists, tuples, dicts, sets, f-strings without formats, indexing "
    "and slicing, comparisons, and/or/not, + - * / // % **, 'a if b else c'"
)

# What an event holds is anything, hence `Any` throughout.
_Run = Callable[[tuple[Any, ...]], Any]


class ExpressionError(GraphError):
    """An expression failed for an event; the message names the expression and the cause, which is chained."""


def compile_expression(source: str, names: Sequence[str] = ("event",)) -> Expression:
    """What a text says, as a function of values for ``names``, in that order.

    Raises:
        GraphError: the text is not an expression, or holds something that is not allowed; the message says where.
    """
    return Expression(source, names)


class Expression:
    """An expression, ready to be called with one value for each of its names.

    Two expressions are equal if their text and names are; `source` is all that a spec has to keep.
    """

    __slots__ = ("_run", "names", "source")

    def __init__(self, source: str, names: Sequence[str] = ("event",)) -> None:
        if not isinstance(source, str):
            raise GraphError(f"an expression must be a string, not {type(source).__name__}")
        self.source: Final = source
        self.names: Final = _checked_names(names)
        self._run: Final = _Compiler(source, self.names).run()

    def __call__(self, *values: Any) -> Any:
        """The expression's value.

        Raises:
            ExpressionError: a key is missing, a value has the wrong type, a limit is passed.
            TypeError: there are more or fewer values than names.
        """
        if len(values) != len(self.names):
            raise TypeError(f"{self!r} takes {len(self.names)} values ({', '.join(self.names)}), not {len(values)}")
        try:
            return self._run(values)
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            MemoryError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            raise ExpressionError(f"{_shown(self.source)} failed: {type(error).__name__}: {error}") from error

    def __repr__(self) -> str:
        names = "" if self.names == ("event",) else f", names={self.names!r}"
        return f"Expression({self.source!r}{names})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Expression):
            return NotImplemented
        return (self.source, self.names) == (other.source, other.names)

    def __hash__(self) -> int:
        return hash((self.source, self.names))

    def __reduce__(self) -> tuple[Any, ...]:
        return compile_expression, (self.source, self.names)


def _checked_names(names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise GraphError(f"the names of an expression are a sequence of strings, not the string {names!r}")
    for name in names:
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
            raise GraphError(f"{name!r} can't be a name in an expression")
    if len(set(names)) != len(names):
        raise GraphError(f"the names of an expression must differ: {', '.join(names)}")
    return tuple(names)


def _shown(source: str) -> str:
    shown = source if len(source) <= 200 else source[:200] + "..."
    return f"expression {shown!r}"


_DISPLAYS: Final[dict[type[ast.expr], Callable[[Iterable[Any]], Any]]] = {
    ast.List: list,
    ast.Tuple: tuple,
    ast.Set: set,
}
_NAMES_OF_NODES: Final[dict[type[ast.AST], str]] = {
    ast.Lambda: "a lambda",
    ast.NamedExpr: "an assignment (:=)",
    ast.Starred: "unpacking (*)",
    ast.ListComp: "a comprehension",
    ast.SetComp: "a comprehension",
    ast.DictComp: "a comprehension",
    ast.GeneratorExp: "a comprehension",
    ast.Await: "await",
    ast.Yield: "yield",
    ast.YieldFrom: "yield",
}


class _Compiler:
    """Turns one text into closures over the tuple of values; raises `GraphError` with the column."""

    def __init__(self, source: str, names: tuple[str, ...]) -> None:
        self.source = source
        self.text = source.strip()
        self.names = names
        self.nodes = 0
        self.visitors: dict[type[ast.AST], Callable[[Any, int], _Run]] = {
            ast.Constant: self.constant,
            ast.Name: self.name,
            ast.Compare: self.compare,
            ast.BoolOp: self.boolean,
            ast.BinOp: self.binary,
            ast.UnaryOp: self.unary,
            ast.IfExp: self.conditional,
            ast.Subscript: self.subscript,
            ast.Slice: self.slice,
            ast.Call: self.call,
            ast.List: self.display,
            ast.Tuple: self.display,
            ast.Set: self.display,
            ast.Dict: self.dictionary,
            ast.JoinedStr: self.joined,
            ast.FormattedValue: self.formatted,
        }

    def run(self) -> _Run:
        if len(self.text) > MAX_SOURCE:
            raise GraphError(f"{_shown(self.source)} has {len(self.text)} characters; the limit is {MAX_SOURCE}")
        if not self.text:
            raise GraphError("an expression is empty")
        try:
            tree = ast.parse(self.text, mode="eval")
        except SyntaxError as error:
            raise GraphError(f"{_shown(self.source)}{self.column(error.lineno, error.offset)}: {error.msg}") from error
        except (ValueError, MemoryError, RecursionError) as error:
            why = str(error) or "it is nested too deeply"
            raise GraphError(f"{_shown(self.source)} can't be read: {why}") from error
        return self.visit(tree.body, 1)

    def column(self, line: int | None, column: int | None) -> str:
        """The place in a message; columns count from 1, in the text as it was given."""
        if not column:  # the parser says 0 where the text ends too early
            return ""
        if line is not None and line > 1:
            return f", line {line}, column {column}"
        return f", column {column + len(self.source) - len(self.source.lstrip())}"

    def refuse(self, node: ast.AST, what: str, hint: str = _ALLOWED) -> NoReturn:
        line, offset = getattr(node, "lineno", None), getattr(node, "col_offset", None)
        if line is not None and offset is not None:
            # The parser counts bytes, and before Python 3.12 not always rightly inside an f-string.
            lines = self.text.split("\n")
            offset = len(lines[min(line, len(lines)) - 1].encode()[:offset].decode(errors="ignore")) + 1
        raise GraphError(f"{_shown(self.source)}{self.column(line, offset)}: {what}; {hint}")

    def visit(self, node: ast.AST, depth: int) -> _Run:
        self.nodes += 1
        if depth > MAX_DEPTH:
            self.refuse(node, f"nested deeper than {MAX_DEPTH}", "split it into several steps")
        if self.nodes > MAX_NODES:
            self.refuse(node, f"more than {MAX_NODES} values and operations", "split it into several steps")
        visitor = self.visitors.get(type(node))
        if visitor is None:
            if isinstance(node, ast.Attribute):
                way = f"call {node.attr}(...)" if node.attr in FUNCTIONS else f"use an index instead: [{node.attr!r}]"
                self.refuse(node, f"attributes (.{node.attr}) are not allowed", way)
            self.refuse(node, f"{_NAMES_OF_NODES.get(type(node), type(node).__name__)} is not allowed")
        return visitor(node, depth + 1)

    def constant(self, node: ast.Constant, depth: int) -> _Run:
        value = node.value
        if value is not None and not isinstance(value, (bool, int, float, str)):
            self.refuse(node, f"the literal {value!r} is not allowed")
        return lambda values: value

    def name(self, node: ast.Name, depth: int) -> _Run:
        if node.id not in self.names:
            if node.id in FUNCTIONS:
                self.refuse(node, f"{node.id!r} is a function", f"call it: {node.id}(...)")
            self.refuse(node, f"the name {node.id!r} is unknown", closest(node.id, self.names))
        return itemgetter(self.names.index(node.id))

    def compare(self, node: ast.Compare, depth: int) -> _Run:
        left = self.visit(node.left, depth)
        tests = [COMPARISONS[type(op)] for op in node.ops]
        rights = [self.visit(right, depth) for right in node.comparators]
        if len(tests) == 1:
            test, right = tests[0], rights[0]
            return lambda values: test(left(values), right(values))
        links = list(zip(tests, rights, strict=True))

        def chain(values: tuple[Any, ...]) -> Any:
            before, answer = left(values), True
            for test, right in links:
                after = right(values)
                answer = test(before, after)
                if not answer:
                    break
                before = after
            return answer

        return chain

    def boolean(self, node: ast.BoolOp, depth: int) -> _Run:
        parts = [self.visit(part, depth) for part in node.values]
        stop_at = isinstance(node.op, ast.Or)
        *firsts, last = parts

        def decide(values: tuple[Any, ...]) -> Any:
            for part in firsts:
                answer = part(values)
                if bool(answer) is stop_at:
                    return answer
            return last(values)

        return decide

    def binary(self, node: ast.BinOp, depth: int) -> _Run:
        apply = BINARY.get(type(node.op))
        if apply is None:
            self.refuse(node, f"the operator {type(node.op).__name__} is not allowed")
        left, right = self.visit(node.left, depth), self.visit(node.right, depth)
        return lambda values: apply(left(values), right(values))

    def unary(self, node: ast.UnaryOp, depth: int) -> _Run:
        apply = UNARY.get(type(node.op))
        if apply is None:
            self.refuse(node, f"the operator {type(node.op).__name__} is not allowed")
        operand = self.visit(node.operand, depth)
        return lambda values: apply(operand(values))

    def conditional(self, node: ast.IfExp, depth: int) -> _Run:
        test, then, other = (self.visit(part, depth) for part in (node.test, node.body, node.orelse))
        return lambda values: then(values) if test(values) else other(values)

    def subscript(self, node: ast.Subscript, depth: int) -> _Run:
        container = self.visit(node.value, depth)
        index = self.visit(node.slice, depth)
        if not isinstance(node.slice, ast.Constant):
            return lambda values: container(values)[index(values)]
        key = node.slice.value
        if isinstance(node.value, ast.Name):  # the most frequent form, event['x']
            place = self.names.index(node.value.id)
            return lambda values: values[place][key]
        return lambda values: container(values)[key]

    def slice(self, node: ast.Slice, depth: int) -> _Run:
        bounds = [self.visit(b or ast.Constant(None), depth) for b in (node.lower, node.upper, node.step)]
        return lambda values: slice(*[bound(values) for bound in bounds])

    def display(self, node: ast.List | ast.Tuple | ast.Set, depth: int) -> _Run:
        make = _DISPLAYS[type(node)]
        items = [self.visit(item, depth) for item in node.elts]
        return lambda values: make([item(values) for item in items])

    def dictionary(self, node: ast.Dict, depth: int) -> _Run:
        pairs: list[tuple[_Run, _Run]] = []
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                self.refuse(value, "unpacking (**) is not allowed")
            pairs.append((self.visit(key, depth), self.visit(value, depth)))
        return lambda values: {key(values): value(values) for key, value in pairs}

    def call(self, node: ast.Call, depth: int) -> _Run:
        if not isinstance(node.func, ast.Name) or node.func.id in self.names:
            if isinstance(node.func, ast.Attribute):
                self.visit(node.func, depth)
            self.refuse(node, "only functions can be called", f"they are {', '.join(FUNCTIONS)}")
        name = node.func.id
        function = FUNCTIONS.get(name)
        if function is None:
            self.refuse(node, f"the function {name!r} is unknown", closest(name, FUNCTIONS))
        self.check_arguments(node, name, function)
        arguments = [self.visit(argument, depth) for argument in node.args]
        options = {str(word.arg): self.visit(word.value, depth) for word in node.keywords}
        return _calling(function.call, arguments, options)

    def check_arguments(self, node: ast.Call, name: str, function: Function) -> None:
        for word in node.keywords:
            if word.arg not in function.keywords:
                what = "unpacking (**)" if word.arg is None else f"the argument {word.arg}="
                self.refuse(word, f"{what} is not allowed in {name}(...)", closest(word.arg or "", function.keywords))
        count = len(node.args)
        if function.most is None:
            wrong, takes = count < function.least, f"{function.least} or more"
        else:
            # Where values are optional, the keywords are other ways to give those.
            given = count + len(node.keywords) if function.least < function.most else count
            wrong = count < function.least or given > function.most
            takes = f"{function.least} to {function.most}" if function.least < function.most else str(function.most)
        if wrong or len({word.arg for word in node.keywords}) < len(node.keywords):
            self.refuse(node, f"{name}(...) is called with a wrong number of values", f"it takes {takes}")

    def joined(self, node: ast.JoinedStr, depth: int) -> _Run:
        parts = [self.visit(part, depth) for part in node.values]

        def join(values: tuple[Any, ...]) -> str:
            texts = [part(values) for part in parts]
            bounded(sum(map(len, texts)), "the text")
            return "".join(texts)

        return join

    def formatted(self, node: ast.FormattedValue, depth: int) -> _Run:
        if node.format_spec is not None or node.conversion == ord("a"):
            self.refuse(
                node.value, "formats in an f-string are not allowed", "write {value} or {value!r}, and round(...)"
            )
        value = self.visit(node.value, depth)
        write = representation if node.conversion == ord("r") else text
        return lambda values: write(value(values))


def _calling(function: Callable[..., Any], arguments: list[_Run], options: dict[str, _Run]) -> _Run:
    if options:
        return lambda values: function(
            *[argument(values) for argument in arguments], **{word: run(values) for word, run in options.items()}
        )
    if len(arguments) == 1:
        (only,) = arguments
        return lambda values: function(only(values))
    return lambda values: function(*[argument(values) for argument in arguments])
