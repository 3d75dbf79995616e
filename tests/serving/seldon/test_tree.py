"""Seldon trees: what each kind of node does, in a plain call and on an event loop, and what callers are told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tree_kit import (
    REQUEST,
    Add,
    AddAndRoute,
    AddAsync,
    Fail,
    Route,
    ask,
    deployment,
    function_of,
    hard,
    node,
    plain,
    predictor,
    rows,
)

from servegraph.errors import GraphError, RequestFailedError
from servegraph.graph.calls import InlineLimits
from servegraph.graph.events import Event
from servegraph.runtimes.function import ServingFunction
from servegraph.runtimes.mock import MockServer
from servegraph.runtimes.seldon.deployment import function_from_deployment
from servegraph.serving.seldon.message import Message
from servegraph.serving.seldon.unit import SeldonUnit

DRIVERS = ("plain", "threads", "inline")


class Driven:
    """A function that is asked by one of the drivers: a plain call, the event loop with threads, the short way."""

    def __init__(self, function: ServingFunction, driver: str) -> None:
        limits = InlineLimits("never" if driver == "threads" else "always")
        self.driver = driver
        self.server = MockServer(function, [], function.new_context(), limits=limits, track=False)
        self.server.load()

    def ask(self, body: Any = None, path: str = "/api/v1.0/predictions") -> tuple[int, Any]:
        """Status and body of the answer."""
        event = Event(REQUEST if body is None else body, "application/json", None, "POST", path)
        plane = self.server.data_plane
        if self.driver == "plain" and self.server.plan.plain:
            outcome: Any = plane.run_plain(event)
        elif self.driver == "inline" and (outcome := plane.engine.run_now(event)) is not None:
            assert outcome is not None
        else:
            outcome = self.server._on_loop(plane.run_in_loop(event))
        response = outcome.body
        return response.status_code, plain(response.body)

    def close(self) -> None:
        self.server.close()


@pytest.fixture(params=DRIVERS)
def drive(request: pytest.FixtureRequest) -> Iterator[Any]:
    opened: list[Driven] = []

    def make(graph: dict[str, Any], components: dict[str, Any] | None = None, **fields: Any) -> Driven:
        opened.append(Driven(function_of(graph, components, **fields), request.param))
        return opened[-1]

    yield make
    for driven in opened:
        driven.close()


def three_levels(to: int = 0) -> dict[str, Any]:
    return node("in", "TRANSFORMER", node("pick", "ROUTER", node("a"), node("b"), node("c")))


TABLE: list[Any] = [
    pytest.param(node("a"), {"a": Add(1)}, [[2, 3]], {}, ["a"], id="one model"),
    pytest.param(
        node("a", "MODEL", node("b")), {"a": Add(1), "b": Add(10)}, [[12, 13]], {"a": -1}, ["a", "b"], id="model chain"
    ),
    pytest.param(
        node("t", "TRANSFORMER", node("a")), {"t": Add(5), "a": Add(1)}, [[7, 8]], {"t": -1}, ["t", "a"],
        id="input transformer",
    ),
    pytest.param(
        node("t", "OUTPUT_TRANSFORMER", node("a")), {"t": Add(5), "a": Add(1)}, [[7, 8]], {"t": -1}, ["t", "a"],
        id="output transformer",
    ),
    pytest.param(
        three_levels(), {"in": Add(1), "pick": Route(0), "a": Add(10), "b": Add(20), "c": Add(30)}, [[12, 13]],
        {"in": -1, "pick": 0}, ["in", "pick", "a"], id="three levels, first child",
    ),
    pytest.param(
        three_levels(), {"in": Add(1), "pick": Route(2), "a": Add(10), "b": Add(20), "c": Add(30)}, [[32, 33]],
        {"in": -1, "pick": 2}, ["in", "pick", "c"], id="three levels, last child",
    ),
    pytest.param(
        three_levels(), {"in": Add(1), "pick": Route(-1), "a": Add(10), "b": Add(20), "c": Add(30)}, [[12, 13]],
        {"in": -1, "pick": -1}, ["in", "pick", "a", "b", "c"], id="all children, the first one's answer",
    ),
    pytest.param(
        three_levels(), {"in": Add(1), "pick": Route(-2), "a": Add(10), "b": Add(20), "c": Add(30)}, [[2, 3]],
        {"in": -1, "pick": -2}, ["in", "pick"], id="stop",
    ),
    pytest.param(
        node("both", "ROUTER", node("a"), methods=["AGGREGATE", "TRANSFORM_OUTPUT"]),
        {"both": AddAndRoute(7, -2), "a": Add(1)},
        [[8, 9]], {"both": -2}, ["both"], id="stop leaves out the aggregation and not the way up",
    ),
    pytest.param(
        node("sum", "COMBINER", node("a"), node("b")), {"sum": Add(100), "a": Add(1), "b": Add(2)}, [[105, 107]],
        {"sum": -1}, ["sum", "a", "b"], id="combiner",
    ),
    pytest.param(
        node("m", "MODEL", node("b"), methods=["TRANSFORM_INPUT", "TRANSFORM_OUTPUT"]), {"m": Add(1), "b": Add(10)},
        [[13, 14]], {"m": -1}, ["m", "b"], id="methods besides those of the type",
    ),
    pytest.param(
        node("u", "UNKNOWN_TYPE", node("b"), methods=["TRANSFORM_OUTPUT"]), {"u": Add(1), "b": Add(10)}, [[12, 13]],
        {"u": -1}, ["u", "b"], id="only methods",
    ),
    pytest.param(
        hard("r", "SIMPLE_ROUTER", node("a"), node("b"), type="MODEL"), {"a": Add(1), "b": Add(2)}, [[2, 3]],
        {"r": 0}, ["r", "a"], id="hard-coded router, whatever its type",
    ),
    pytest.param(
        hard("avg", "AVERAGE_COMBINER", node("a"), node("b")), {"a": Add(1), "b": Add(3)}, [[3, 4]],
        {"avg": -1}, ["avg", "a", "b"], id="hard-coded average",
    ),
    pytest.param(
        node("sum", "COMBINER", node("a"), node("t", "TRANSFORMER", node("b"))),
        {"sum": Add(0), "a": AddAsync(1), "t": AddAsync(1), "b": Add(2)}, [[6, 8]],
        {"sum": -1, "t": -1}, ["sum", "a", "t", "b"], id="coroutines beside functions",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("graph", "components", "expected", "routing", "path"), TABLE)
def test_tree_answers_and_tells_its_way(
    drive: Any, graph: Any, components: Any, expected: Any, routing: Any, path: Any
) -> None:
    status, answer = drive(graph, components).ask()
    assert status == 200, answer
    assert rows(answer) == expected
    assert answer["meta"].get("routing", {}) == routing
    assert sorted(answer["meta"]["requestPath"]) == sorted(path)
    assert len(answer["meta"]["puid"]) == 26


@pytest.mark.parametrize("chosen", [3, -3, 99])
def test_router_beyond_its_children_is_an_error_that_names_it(drive: Any, chosen: int) -> None:
    components = {"in": Add(1), "pick": Route(chosen), "a": Add(), "b": Add(), "c": Add()}
    status, answer = drive(three_levels(), components).ask()
    assert status == 500
    assert answer["status"]["reason"] == "ENGINE_INVALID_ROUTING"
    assert f"node 'pick': it chose child {chosen}, and has 3" in answer["status"]["info"]


FAILING: list[Any] = [
    pytest.param(node("bad"), id="model"),
    pytest.param(node("bad", "TRANSFORMER", node("a")), id="way down"),
    pytest.param(node("bad", "OUTPUT_TRANSFORMER", node("a")), id="way up"),
    pytest.param(node("bad", "ROUTER", node("a")), id="router"),
    pytest.param(node("bad", "COMBINER", node("a")), id="combiner"),
    pytest.param(node("sum", "COMBINER", node("a"), node("bad")), id="below a combiner"),
    pytest.param(node("a", "MODEL", node("sum", "TRANSFORMER", node("bad"))), id="at the bottom"),
]


def has(graph: dict[str, Any], name: str) -> bool:
    return graph["name"] == name or any(has(child, name) for child in graph.get("children", []))


@pytest.mark.parametrize("graph", FAILING)
@pytest.mark.parametrize(
    ("how", "expected", "reason", "text"),
    [
        ("user", 500, "MICROSERVICE_INTERNAL_ERROR", "node 'bad': the model is broken"),
        ("told", 404, "NO_ROW", "node 'bad': no such row"),
        ("type", 400, "MICROSERVICE_BAD_DATA", "node 'bad': "),
    ],
)
def test_failure_anywhere_names_its_node(
    drive: Any, graph: Any, how: str, expected: int, reason: str, text: str
) -> None:
    components = {"bad": Fail(how), "a": Add(), "sum": Add()}
    status, answer = drive(graph, {k: v for k, v in components.items() if has(graph, k)}).ask()
    assert (status, answer["status"]["reason"]) == (expected, reason)
    assert answer["status"]["info"].startswith(text)
    assert answer["status"]["code"] == -1


def test_first_failure_in_the_order_of_children_counts(drive: Any) -> None:
    graph = node("sum", "COMBINER", node("a"), node("x"), node("y"))
    components = {"sum": Add(), "a": Add(), "x": Fail("told"), "y": Fail("user")}
    for _ in range(5):
        status, answer = drive(graph, components).ask()
        assert (status, answer["status"]["info"]) == (404, "node 'x': no such row")


# -- meta --------------------------------------------------------------------------------------------------------------


def test_tags_of_later_nodes_win_and_metrics_are_gathered_in_order(drive: Any) -> None:
    graph = node("t", "TRANSFORMER", node("sum", "COMBINER", node("a"), node("b")))
    components = {"t": Add(0, "t"), "sum": Add(0, "sum"), "a": Add(0, "a"), "b": Add(0, "b")}
    body = {**REQUEST, "meta": {"puid": "mine", "tags": {"t": "old", "sent": 1}}}
    _, answer = drive(graph, components).ask(body)
    meta = answer["meta"]
    assert meta["puid"] == "mine"
    assert meta["tags"] == {"t": 0, "sent": 1, "a": 0, "b": 0, "last": "sum"}
    assert [m["key"] for m in meta["metrics"]] == ["t", "a", "b"]


def test_tag_that_a_sibling_only_repeats_does_not_undo_another_ones(drive: Any) -> None:
    class Silent(Add):
        def predict(self, X: Any, names: Any, meta: Any = None) -> Any:
            return X

    graph = node("sum", "COMBINER", node("a"), node("b"))
    body = {**REQUEST, "meta": {"tags": {"last": "caller"}}}
    _, answer = drive(graph, {"sum": Silent(), "a": Add(0, "a"), "b": Silent()}).ask(body)
    assert answer["meta"]["tags"]["last"] == "a"


def test_router_keeps_its_own_tags_and_metrics(drive: Any) -> None:
    graph = node("pick", "ROUTER", node("a"), node("b"))
    _, answer = drive(graph, {"pick": Route(1), "a": Add(1), "b": Add(2, "b")}).ask()
    assert answer["meta"]["tags"] == {"router": 1, "b": 2, "last": "b"}
    assert [m["key"] for m in answer["meta"]["metrics"]] == ["chosen", "b"]


def test_request_path_has_the_image_of_each_node(drive: Any) -> None:
    graph = node("t", "TRANSFORMER", hard("m", "SIMPLE_MODEL"))
    pods = [{"spec": {"containers": [{"name": "t", "image": "me/t:0.1"}]}}]
    _, answer = drive(graph, {"t": Add(1)}, componentSpecs=pods).ask()
    assert answer["meta"]["requestPath"] == {"t": "me/t:0.1", "m": "SIMPLE_MODEL"}


def test_nodes_get_the_tags_so_far_and_no_metrics_of_others(drive: Any) -> None:
    last = Add(0, "b")
    drive(node("a", "MODEL", node("b")), {"a": Add(0, "a"), "b": last}).ask()
    assert last.seen[0]["tags"] == {"a": 0, "last": "a"}
    assert "metrics" not in last.seen[0]


def test_siblings_do_not_see_what_another_does_to_its_rows(drive: Any) -> None:
    class InPlace(Add):
        def predict(self, X: Any, names: Any, meta: Any = None) -> Any:
            X += self.by
            return X

    graph = node("sum", "COMBINER", node("a"), node("b"), node("c"))
    components = {"sum": Add(0), "a": InPlace(10), "b": InPlace(100), "c": InPlace(1000)}
    body = {"data": {"ndarray": [[1.0]]}}
    _, answer = drive(graph, components).ask(body)
    assert rows(answer) == [[1113.0]]


# -- feedback ----------------------------------------------------------------------------------------------------------

FEEDBACK = "/api/v1.0/feedback"


def feedback(routing: dict[str, int] | None, reward: float = 1.0) -> dict[str, Any]:
    return {"request": REQUEST, "response": {"meta": {"puid": "p", "routing": routing or {}}}, "reward": reward}


@pytest.mark.parametrize(
    ("routing", "told"),
    [
        ({"pick": 0}, {"a"}),
        ({"pick": 2, "in": -1}, {"c"}),
        ({"pick": -1}, {"a", "b", "c"}),
        (None, {"a", "b", "c"}),
        ({"pick": -2}, set()),
    ],
)
def test_feedback_goes_along_the_recorded_route(drive: Any, routing: Any, told: set[str]) -> None:
    components: dict[str, Any] = {"in": Add(), "pick": Route(), "a": Add(), "b": Add(), "c": Add()}
    status, _ = drive(three_levels(), components).ask(feedback(routing), FEEDBACK)
    assert status == 200
    assert {name for name in "abc" if components[name].feedback} == told
    chosen = (routing or {}).get("pick")
    assert components["pick"].feedback == [(1.0, chosen)]
    assert components["in"].feedback == []


def test_answer_given_back_as_feedback_reaches_the_nodes_that_gave_it(drive: Any) -> None:
    components = {"in": Add(), "pick": Route(1), "a": Add(), "b": Add(), "c": Add()}
    driven = drive(three_levels(), components)
    _, answer = driven.ask()
    body = {"request": REQUEST, "response": answer, "reward": 0.5}
    assert driven.ask(body, FEEDBACK)[0] == 200
    assert [len(components[n].feedback) for n in "abc"] == [0, 1, 0]  # type: ignore[attr-defined]


def test_feedback_along_a_route_that_is_not_there_is_the_callers_fault(drive: Any) -> None:
    components = {"in": Add(), "pick": Route(), "a": Add(), "b": Add(), "c": Add()}
    status, answer = drive(three_levels(), components).ask(feedback({"pick": 7}), FEEDBACK)
    assert status == 400
    assert "node 'pick': the response's routing says child 7, and the node has 3" in answer["status"]["info"]


def test_feedback_that_a_node_cannot_take_names_it(drive: Any) -> None:
    status, answer = drive(node("bad"), {"bad": Fail()}).ask(feedback(None), FEEDBACK)
    assert (status, answer["status"]["info"]) == (500, "node 'bad': the model is broken")


def test_method_send_feedback_adds_feedback_to_other_types(drive: Any) -> None:
    transformer = Add()
    graph = node("t", "TRANSFORMER", hard("m", "SIMPLE_MODEL"), methods=["SEND_FEEDBACK"])
    drive(graph, {"t": transformer}).ask(feedback(None, 0.25), FEEDBACK)
    assert transformer.feedback == [(0.25, None)]


class AsList:
    """Answers with lists, as many components do."""

    def predict(self, X: Any, names: Any, meta: Any = None) -> Any:
        return (X + 1).tolist()

    transform_input = predict
    transform_output = predict

    def aggregate(self, Xs: Any, names: Any) -> Any:
        return (Xs[0] + Xs[1]).tolist()

    def route(self, X: Any, names: Any) -> int:
        return int(X.sum() < 0)

    def tags(self, X: Any) -> dict[str, Any]:
        return {"sum": float(X.sum())}


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("encoding", ["ndarray", "tensor"])
def test_node_gets_an_array_where_the_one_before_it_has_given_a_list(drive: Any, driver: str, encoding: str) -> None:
    graph = node("sum", "COMBINER", node("t", "TRANSFORMER", node("a")), node("r", "ROUTER", node("b"), node("c")))
    body: dict[str, Any] = {"data": {"ndarray": [[1.0, 2.0]]}}
    if encoding == "tensor":
        body = {"data": {"tensor": {"shape": [1, 2], "values": [1.0, 2.0]}}}
    components = {name: AsList() for name in ("sum", "t", "a", "r", "b", "c")}
    root = node("first", "MODEL", node("out", "OUTPUT_TRANSFORMER", graph))
    driven = Driven(function_of(root, {**components, "first": AsList(), "out": AsList()}), driver)
    try:
        status, answer = driven.ask(body)
    finally:
        driven.close()
    assert status == 200
    # 2 3 into the combiner; 4 5 and 3 4 out of its children; 7 9 summed; 8 10 at the end.
    assert np.ravel(rows(answer)).tolist() == [8.0, 10.0]
    assert answer["meta"]["tags"] == {"sum": 16.0}


def test_list_that_is_no_array_is_refused_by_the_node_behind_it() -> None:
    class Ragged:
        def predict(self, X: Any, names: Any) -> Any:
            return [[1], [2, 3]]

    graph = node("a", "MODEL", node("b"))
    with function_of(graph, {"a": Ragged(), "b": Add(0)}).to_mock_server() as server:
        response = server.test("/api/v1.0/predictions", REQUEST, silent=True)
    assert (response.status_code, response.body["status"]["info"]) == (
        400,
        "node 'b': data.ndarray is not rectangular: all rows, at each level, must have the same length",
    )


# -- on the event loop -------------------------------------------------------------------------------------------------


class Meeting:
    """Answers when as many as are expected are asking at the same time."""

    def __init__(self, parties: int) -> None:
        self.parties = parties
        self.inside = 0
        self.all_here: asyncio.Event | None = None

    async def predict(self, X: Any, names: Any) -> Any:
        if self.all_here is None:
            self.all_here = asyncio.Event()
        self.inside += 1
        if self.inside == self.parties:
            self.all_here.set()
        await asyncio.wait_for(self.all_here.wait(), 20)
        return X


def test_children_run_at_the_same_time_and_nested_ones_too() -> None:
    meeting = Meeting(3)
    graph = node("sum", "COMBINER", node("a"), node("t", "COMBINER", node("b"), node("c")))
    components = {"sum": Add(0), "t": Add(0), "a": meeting, "b": meeting, "c": meeting}
    with function_of(graph, components).to_mock_server() as server:
        assert rows(ask(server)) == [[3.0, 6.0]]


def test_child_that_alone_has_to_wait_runs_in_the_task_of_the_request() -> None:
    tasks: dict[str, Any] = {}

    class Noted:
        def __init__(self, name: str) -> None:
            self.name = name

        async def predict(self, X: Any, names: Any) -> Any:
            tasks[self.name] = asyncio.current_task()
            return X

        transform_input = predict

    def tasks_of(*waiting: str) -> dict[str, Any]:
        tasks.clear()
        children = [node(name) for name in ("a", "b")]
        graph = node("t", "TRANSFORMER", node("sum", "COMBINER", *children))
        components = {"sum": Add(0), "t": Noted("t")}
        components |= {name: Noted(name) if name in waiting else Add(0) for name in ("a", "b")}
        driven = Driven(function_of(graph, components), "inline")
        try:
            assert driven.ask()[0] == 200
        finally:
            driven.close()
        return dict(tasks)

    found = tasks_of("a")
    assert found["a"] is found["t"]
    found = tasks_of("a", "b")
    assert len({*found.values()}) == 3


def test_short_way_is_open_to_a_tree_that_has_had_no_feedback() -> None:
    graph = node("pick", "ROUTER", node("a"), node("b"))
    function = function_of(graph, {"pick": Route(0), "a": Add(0), "b": Add(0)})
    with function.to_mock_server() as server:
        engine, path = server.data_plane.engine, "/api/v1.0/predictions"
        assert not engine.is_quick(path)
        direct = server.plan.direct
        assert direct is not None
        units = direct.target.predictors["main"].units
        for unit in units.values():
            assert unit.node._feedback is not None
            for call in unit.node._asked:
                call.guard.inline = True  # as it is once the code has been fast for some time
        assert engine.is_quick(path)
        assert not any(unit.node.learns_at_once() for unit in units.values())


def test_failing_child_ends_those_behind_it() -> None:
    cancelled = []

    class Waits:
        async def predict(self, X: Any, names: Any) -> Any:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.append(True)
                raise

    class FailsLater:
        async def predict(self, X: Any, names: Any) -> Any:
            await asyncio.sleep(0.01)
            raise ValueError("no")

    graph = node("sum", "COMBINER", node("x"), node("slow"))
    components = {"sum": Add(0), "x": FailsLater(), "slow": Waits()}
    with function_of(graph, components).to_mock_server() as server:
        response = server.test("/api/v1.0/predictions", REQUEST, silent=True)
    assert response.body["status"]["info"] == "node 'x': no"
    assert cancelled == [True]


def test_node_that_takes_too_long_is_told_by_name() -> None:
    class Slow:
        async def predict(self, X: Any, names: Any) -> Any:
            await asyncio.sleep(60)

    function = function_of(node("slow"), {"slow": Slow()}, annotations={"seldon.io/rest-timeout": "30"})
    with function.to_mock_server() as server:
        response = server.test("/api/v1.0/predictions", REQUEST, silent=True)
    assert response.status_code == 504
    assert response.body["status"]["info"].startswith("node 'slow': step 'slow' took longer than 0.03 s")


def test_step_policy_of_a_node_tries_again_and_keeps_nothing_of_failed_tries() -> None:
    class Flaky(Add):
        tries = 0

        def predict(self, X: Any, names: Any, meta: Any = None) -> Any:
            type(self).tries += 1
            if self.tries == 1:
                raise ValueError("not yet")
            return super().predict(X, names, meta)

    function = function_of(node("t", "TRANSFORMER", node("a")), {"t": Add(1), "a": Flaky(2, "a")})
    leaf = function.graph["main"]["t"]["a"]
    leaf.policy = type(leaf.policy)(retries=1, backoff_s=0.0)
    with function.to_mock_server() as server:
        answer = ask(server)
    assert rows(answer) == [[4.0, 5.0]]
    assert [m["key"] for m in answer["meta"]["metrics"]] == ["a"]
    assert Flaky.tries == 2


# -- beside other steps ------------------------------------------------------------------------------------------------


def test_seldon_node_as_step_of_a_flow_answers_in_the_form_of_the_request() -> None:
    import servegraph

    fn = servegraph.new_function("flow")
    graph = fn.set_topology("flow", engine="sync")
    graph.to(SeldonUnit, name="unit", component=Add(1)).respond()
    with fn.to_mock_server() as server:
        assert rows(server.test("/", REQUEST)) == [[2.0, 3.0]]
        v2 = server.test("/", {"inputs": [[1.0]], "id": "7"})
        assert v2 == {"model_name": "unit", "outputs": [[2.0]], "id": "7"}
        message = server.test("/", Message("data", np.array([[5.0]]), encoding="ndarray"))
        assert isinstance(message, Message)
        assert message.value.tolist() == [[6.0]]
        server.test("/", feedback(None))


def test_v2_model_as_leaf_gets_rows_and_gives_rows(drive: Any) -> None:
    import servegraph

    class Doubler(servegraph.V2ModelServer):
        def load(self) -> None:
            self.model = 2

        def predict(self, request: Any) -> Any:
            return [[x * self.model for x in row] for row in request["inputs"]]

    function = function_of(node("t", "TRANSFORMER", node("m")), {"t": Add(1), "m": Add()})
    router = function.graph["main"]["t"]
    router.add_route("m", class_name=Doubler)
    for driver in DRIVERS:
        driven = Driven(function, driver)
        status, answer = driven.ask()
        assert (status, rows(answer)) == (200, [[4.0, 6.0]])
        assert answer["meta"]["requestPath"]["m"] == "Doubler"
        status, answer = driven.ask({"data": {"tensor": {"shape": [1, 2], "values": [1, 2]}}})
        assert answer["data"]["tensor"] == {"shape": [1, 2], "values": [4, 6]}
        assert driven.ask({"data": {"ndarray": []}})[0] == 200
        driven.close()


def test_plain_function_as_leaf_gets_the_message() -> None:
    function = function_of(node("t", "TRANSFORMER", node("m")), {"t": Add(1), "m": Add()})
    router = function.graph["main"]["t"]
    router.add_route("m", handler=lambda message: message.value * 3)
    with function.to_mock_server() as server:
        assert rows(ask(server)) == [[6.0, 9.0]]


def test_node_without_code_and_wrong_options_are_told_when_the_graph_is_built() -> None:
    with pytest.raises(GraphError, match="node 'u' has no code"):
        SeldonUnit(name="u")
    with pytest.raises(GraphError, match="unit has no 'typ'; did you mean 'type'"):
        SeldonUnit(name="u", component=Add, unit={"typ": "MODEL"})
    with pytest.raises(GraphError, match="type is 'MODAL'; did you mean 'MODEL'"):
        SeldonUnit(name="u", component=Add, unit={"type": "MODAL"})


def test_fast_tree_of_functions_runs_on_the_spot() -> None:
    components = {"in": Add(1), "pick": Route(0), "a": Add(10), "b": Add(20), "c": Add(30)}
    driven = Driven(function_of(three_levels(), components), "inline")
    event = Event(dict(REQUEST), None, None, "POST", "/api/v1.0/predictions")
    outcome: Any = driven.server.data_plane.engine.run_now(event)
    assert outcome is not None
    assert rows(outcome.body.body) == [[12.0, 13.0]]
    driven.close()


def test_request_that_is_no_message_is_refused_in_the_same_envelope() -> None:
    function = function_from_deployment(deployment(predictor(hard("m", "SIMPLE_MODEL"))))
    with function.to_mock_server() as server, pytest.raises(RequestFailedError) as failed:
        server.test("/api/v1.0/predictions", {"nothing": 1})
    assert failed.value.status == 400
    body: Any = failed.value.body
    assert body["status"]["reason"] == "MICROSERVICE_BAD_DATA"
