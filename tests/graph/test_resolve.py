from __future__ import annotations

import functools
import json
import os.path
import sys
import types
from typing import Any

import pytest

from servegraph.errors import GraphError
from servegraph.graph.builtin import Filter, Merge
from servegraph.graph.expressions import compile_expression
from servegraph.graph.resolve import (
    accepts,
    instantiate,
    is_async,
    parameters,
    resolve,
    resolve_callable,
    takes_any,
)


class Thing:
    class Inner:
        pass

    def __init__(self, factor: int, name: str = "", context: Any = None, scale: int = 1) -> None:
        self.factor, self.name, self.context, self.scale = factor, name, context, scale

    def method(self) -> None:
        pass


class AnyThing:
    def __init__(self, **kwargs: Any) -> None:
        self.kwargs = kwargs


class Broken:
    def __init__(self) -> None:
        raise TypeError("inner trouble")


def double(x: int) -> int:
    return 2 * x


async def later(x: int) -> int:
    return x


class AsyncCallable:
    async def __call__(self, x: int) -> int:
        return x


HERE = {"Thing": Thing, "double": double, "json": json, "number": 3}


def test_resolve_looks_in_namespaces_in_order_and_then_imports() -> None:
    module = types.ModuleType("mine")
    vars(module)["double"] = later
    assert resolve("double", [HERE, module]) is double
    assert resolve("double", [module, HERE]) is later
    assert resolve("Thing.Inner", [HERE]) is Thing.Inner
    assert resolve("Thing.method", [HERE]) is Thing.method
    assert resolve("os.path.join", []) is os.path.join
    assert resolve("os.path:join", [{"os": 1}]) is os.path.join


def test_resolve_through_a_module_of_a_namespace_imports_its_submodules() -> None:
    assert resolve("json.dumps", [HERE]) is json.dumps
    sys.modules.pop("json.tool", None)
    assert resolve("json.tool.main", [HERE]).__module__ == "json.tool"


def test_resolve_of_an_unknown_name_lists_near_ones() -> None:
    with pytest.raises(GraphError, match="no class or function 'Thng'; did you mean 'Thing'"):
        resolve("Thng", [HERE])
    with pytest.raises(GraphError, match="give the class itself"):
        resolve("Thng", [])
    with pytest.raises(GraphError, match="no attribute 'nope'"):
        resolve("Thing.nope", [HERE])


@pytest.mark.parametrize("name", ["no_such_package.Thing", "json.nope", "json:nope", "servegraph.nope.X"])
def test_resolve_of_what_cannot_be_imported_raises_a_graph_error(name: str) -> None:
    with pytest.raises(GraphError):
        resolve(name, [])


@pytest.mark.parametrize(
    ("name", "target"),
    [("storey.Filter", Filter), ("mlrun.serving.Merge", Merge), ("mlrun.serving.merger.Merge", Merge)],
)
def test_resolve_of_another_frameworks_name_gives_ours(name: str, target: Any) -> None:
    assert resolve(name, []) is target


@pytest.mark.parametrize("name", ["mlrun.serving.V2ModelServer", "mlrun.serving.v2_serving.V2ModelServer"])
def test_resolve_of_mlruns_model_server_gives_ours(name: str) -> None:
    import servegraph

    assert resolve(name, []) is servegraph.V2ModelServer


def test_resolve_callable_takes_functions_names_and_expressions() -> None:
    assert resolve_callable(double, []) is double
    assert resolve_callable(" double ", [HERE]) is double
    assert resolve_callable("(event['x'] * 2)", [])({"x": 4}) == 8
    assert type(resolve_callable("(event)", [])) is type(compile_expression("(event)"))


@pytest.mark.parametrize("reference", ["number", 3, None])
def test_resolve_callable_of_what_cannot_be_called_is_refused(reference: Any) -> None:
    with pytest.raises(GraphError, match="cannot be called"):
        resolve_callable(reference, [HERE])


def test_parameters_tell_what_a_callable_takes() -> None:
    assert accepts(Thing, "factor")
    assert not accepts(Thing, "other")
    assert takes_any(AnyThing)
    assert not takes_any(Thing)
    assert parameters(dict.fromkeys) is not None
    assert dict(parameters(3)) == {}  # type: ignore[arg-type]


def test_is_async_sees_through_partials_and_callables() -> None:
    assert is_async(later)
    assert is_async(functools.partial(functools.partial(later), x=1))
    assert is_async(AsyncCallable())
    assert not is_async(double)
    assert not is_async(functools.partial(double))
    assert not is_async(Thing)


def test_instantiate_passes_common_arguments_where_they_are_taken() -> None:
    common = {"name": "n", "context": "c", "input_path": "p"}
    thing = instantiate(Thing, {"factor": 2}, common, [], "s")
    assert (thing.factor, thing.name, thing.context) == (2, "n", "c")
    anything = instantiate(AnyThing, {"a": 1}, common, [], "s")
    assert anything.kwargs == {"a": 1, **common}


def test_instantiate_keeps_a_steps_own_argument_over_the_common_one() -> None:
    assert instantiate(Thing, {"factor": 1, "name": "own"}, {"name": "n"}, [], "s").name == "own"


def test_instantiate_resolves_arguments_with_an_underscore() -> None:
    thing = instantiate(AnyThing, {"_fn": "double", "_other": "(event + 1)", "_number": 3}, {}, [HERE], "s")
    assert thing.kwargs["fn"] is double
    assert thing.kwargs["other"](1) == 2
    assert thing.kwargs["_number"] == 3


def test_instantiate_with_an_unknown_argument_names_the_nearest() -> None:
    with pytest.raises(GraphError, match="step 's': Thing takes no argument 'facto'; did you mean 'factor'"):
        instantiate(Thing, {"facto": 1}, {}, [], "s")


def test_instantiate_that_fails_names_step_and_class_and_chains_the_cause() -> None:
    with pytest.raises(GraphError, match=r"failed to init step 's': Broken\(\): inner trouble") as caught:
        instantiate(Broken, {}, {}, [], "s")
    assert isinstance(caught.value.__cause__, TypeError)
    with pytest.raises(GraphError, match="factor"):
        instantiate(Thing, {}, {}, [], "s")
