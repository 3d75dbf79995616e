"""The state of a component in the life of its step: where it is kept, how often, and what goes wrong without harm."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from own_redis import OwnRedis

import servegraph
from servegraph.errors import GraphError, SettingsError
from servegraph.graph.context import GraphContext
from servegraph.graph.events import Event
from servegraph.serving.seldon.pickles import set_pickle_policy
from servegraph.serving.seldon.state_store import STATE_STORE, MemoryStore
from servegraph.serving.seldon.step import ComponentStep
from servegraph.serving.seldon.step_state import place_of, state_place
from servegraph.serving.seldon.unit import SeldonUnit

REQUEST: dict[str, Any] = {"data": {"ndarray": [[1.0]]}}
UNIT = {"unit_id": "u", "predictor_id": "p", "deployment_id": "d"}
KEY = "persistence_d_p_u"
RARELY = 3600


class Seen:
    """Counts the rows that it has seen, and answers with the count."""

    def __init__(self, start: int = 0) -> None:
        self.n = start
        self.at_load: int | None = None

    def load(self) -> None:
        self.at_load = self.n

    def predict(self, X: Any, names: Any) -> Any:
        self.n += len(X)
        return [[self.n]]

    def get_state(self) -> dict[str, Any]:
        return {"n": self.n}

    def set_state(self, state: dict[str, Any]) -> None:
        self.n = state["n"]


class Often(Seen):
    push_frequency: Any = 0.01


class Rarely(Seen):
    push_frequency: Any = RARELY


class Told(Seen):
    """Takes the period as an argument, as components for Seldon's persistence did."""

    def __init__(self, push_frequency: float = 60.0, start: int = 0) -> None:
        super().__init__(start)
        self.told = push_frequency


class Anything(Seen):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        self.kwargs = kwargs


class Plain:
    """Says nothing of its state."""

    def __init__(self) -> None:
        self.n = 0

    def predict(self, X: Any, names: Any) -> Any:
        self.n += len(X)
        return [[self.n]]


@pytest.fixture
def store(request: pytest.FixtureRequest) -> str:
    """The address of a store of the test's own."""
    return f"memory://{request.node.name}"


@pytest.fixture
def redis(tmp_path: Path, free_port: int) -> Iterator[OwnRedis]:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = OwnRedis(folder, free_port)
    server.start()
    yield server
    server.kill()


def context_of(place: str | None) -> GraphContext:
    """The context on a server that keeps states at a place; ``None`` is a runtime without settings."""
    context = GraphContext()
    if place is not None:
        context.services[STATE_STORE] = place
    return context


def begin(component: Any, place: str = "", *, asked: Any = "", parameters: Any = None) -> ComponentStep:
    """A step that is ready, on a server that keeps states at a place."""
    step = ComponentStep(context_of(place), "step", component, parameters, unit=UNIT, state_store=asked)
    step.post_init()
    return step


def ask(step: ComponentStep) -> Any:
    return step.do_event(Event(dict(REQUEST))).body["data"]["ndarray"]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.005)


# -- where -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "offered", "wanted"),
    [
        ("", "", ""),
        ("", "memory://server", "memory://server"),
        ("memory://step", "", "memory://step"),
        ("memory://step", "memory://server", "memory://server"),
        ("off", "memory://server", ""),
        ("memory://step", "off", ""),
        ("on", "", "redis://somewhere:7000"),
        ("on", "memory://server", "memory://server"),
        ("on", "off", ""),
        ("", "on", "redis://somewhere:7000"),
        ("memory://step", "on", "memory://step"),
        ("on", "on", "redis://somewhere:7000"),
    ],
)
def test_server_has_the_last_word_on_the_address_and_the_step_on_whether(
    asked: str, offered: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_SERVICE_HOST", "somewhere")
    monkeypatch.setenv("REDIS_SERVICE_PORT", "7000")
    assert place_of(asked, context_of(offered)) == wanted


def test_runtime_without_settings_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVEGRAPH_STATE_STORE", "memory://environment")
    assert place_of("", context_of(None)) == "memory://environment"
    assert place_of("off", context_of(None)) == ""
    assert place_of("", context_of("")) == ""  # a server's settings have read it already


@pytest.mark.parametrize(
    "text", ["", "on", "off", "redis://h:1/0", "rediss://h", "file:///x", "memory://x", "unix:///s"]
)
def test_places_are_known(text: str) -> None:
    assert state_place(text) == text


@pytest.mark.parametrize(
    ("given", "place"), [(True, "on"), ("ON", "on"), ("true", "on"), (False, "off"), ("Off", "off")]
)
def test_words_are_known_as_yaml_reads_them(given: Any, place: str, store: str) -> None:
    assert state_place(given) == place
    step = begin(Seen, store, asked=given)
    ask(step)
    step.close()
    assert (MemoryStore.of(store).read(f"{KEY}:state") is not None) is (place == "on")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("redi://h", "'redi://h' is no address of a state store; .*did you mean 'redis'"),
        ("1", "'1' is no address of a state store; write redis://host:port/db"),
        ("no", "'no' is no address"),
        ("http://u:secret@h", r"'http://\*\*\*@h' is no address"),
    ],
)
def test_other_places_are_refused_without_showing_passwords(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        state_place(text)
    with pytest.raises(SettingsError, match=f"state of {KEY}: {message}"):
        begin(Seen, text)
    with pytest.raises(GraphError, match=f"unit: state_store: {message}"):
        SeldonUnit(name="u", component=Seen, unit={"state_store": text})


# -- from when to when -----------------------------------------------------------------------------------------------


def test_step_restores_before_it_loads_and_saves_when_it_is_closed(store: str) -> None:
    first = begin(Seen, store)
    assert first.user_object.at_load == 0
    assert (ask(first), ask(first)) == ([[1]], [[2]])
    first.close()
    second = begin(Seen, store)
    assert second.user_object.at_load == 2
    assert ask(second) == [[3]]
    second.close()


def test_component_whose_load_fails_saves_nothing(store: str) -> None:
    class Broken(Seen):
        def load(self) -> None:
            raise OSError("no model")

    step = ComponentStep(context_of(store), "step", Broken, unit=UNIT)
    with pytest.raises(OSError, match="no model"):
        step.post_init()
    step.close()
    assert MemoryStore.of(store).read(f"{KEY}:state") is None


def test_state_of_a_step_in_a_flow_is_kept_under_the_names_of_its_function(store: str) -> None:
    def answers() -> list[Any]:
        function = servegraph.new_function("flower")
        graph = function.set_topology("flow", engine="sync")
        graph.to(SeldonUnit, name="node", component=Seen, unit={"state_store": store}).to(
            ComponentStep, name="step", component=Seen, state_store=store
        ).respond()
        with function.to_mock_server() as server:
            return [server.test("/", REQUEST)["data"]["ndarray"] for _ in range(3)]

    assert answers() == [[[1]], [[2]], [[3]]]
    assert answers() == [[[4]], [[5]], [[6]]]
    kept = MemoryStore.of(store)
    for name in ("node", "step"):
        assert kept.read(f"persistence_flower_0_{name}:state") is not None


def test_component_without_a_state_is_left_alone_unless_it_is_asked_for(
    store: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "servegraph"):
        begin(Plain, store).close()
        assert caplog.text == ""
        begin(Plain, store, asked="on").close()
    assert "state of Plain is not kept: give it get_counts()" in caplog.text


def test_whole_object_is_served_in_place_of_a_new_one_where_pickles_are_allowed(store: str) -> None:
    set_pickle_policy(True)
    try:
        first = begin(Plain, store, asked="on")
        assert ask(first) == [[1]]
        first.close()
        second = begin(Plain, store, asked="on")
        assert ask(second) == [[2]]
        assert second.user_object.n == 2
        second.close()
    finally:
        set_pickle_policy(None)


# -- how often -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("component", "parameters"),
    [
        (Often, None),
        (Rarely, {"push_frequency": 0.01}),
        (Seen, [{"name": "push_frequency", "value": "0.01", "type": "FLOAT"}]),
        (Seen, {"push_frequency": "0.01"}),
        (Told, {"push_frequency": 0.01}),
        (Seen(), {"push_frequency": 0.01}),
    ],
)
def test_state_is_saved_every_push_frequency_seconds(store: str, component: Any, parameters: Any) -> None:
    step = begin(component, store, parameters=parameters)
    ask(step)
    kept = MemoryStore.of(store)
    until(lambda: b'"n":1' in (kept.read(f"{KEY}:state") or b""))
    step.close()


def test_parameter_goes_over_the_attribute(store: str) -> None:
    step = begin(Often, store, parameters={"push_frequency": RARELY})
    ask(step)
    assert MemoryStore.of(store).read(f"{KEY}:state") is None
    step.close()
    assert MemoryStore.of(store).read(f"{KEY}:state") is not None


@pytest.mark.parametrize("value", ["often", 0, -1, None, "nan", "inf"])
def test_period_that_is_no_time_is_told_with_the_key(store: str, value: Any) -> None:
    message = f"state of {KEY}: push_frequency: {value!r} is not a positive number of seconds"
    with pytest.raises(SettingsError, match=message):
        begin(Seen, store, parameters={"push_frequency": value})

    class Wrong(Seen):
        push_frequency = value

    with pytest.raises(SettingsError, match=message):
        begin(Wrong, store)
    assert ask(begin(Wrong)) == [[1]]  # where nothing is kept, it is nobody's business


def test_push_frequency_is_an_argument_only_where_the_class_takes_it() -> None:
    parameters = {"push_frequency": 5.0}
    assert begin(Seen, parameters={**parameters, "start": 3}).user_object.n == 3
    assert begin(Told, parameters=parameters).user_object.told == 5.0
    assert begin(Anything, parameters=parameters).user_object.kwargs == parameters
    assert begin(lambda push_frequency: Told(push_frequency), parameters=parameters).user_object.told == 5.0
    with pytest.raises(GraphError, match="Seen cannot be made with parameters push_frequency, other"):
        begin(Seen, parameters={**parameters, "other": 1})


# -- a store that is not there ---------------------------------------------------------------------------------------


def test_dead_redis_fails_neither_start_nor_prediction_nor_end(
    free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "servegraph"):
        step = begin(Often, f"redis://127.0.0.1:{free_port}/0")
        assert [ask(step) for _ in range(20)] == [[[n]] for n in range(1, 21)]
        step.close()
    assert caplog.text.count("cannot restore it, will try again") == 1
    assert "the last state of Often could not be saved" in caplog.text


def test_redis_that_dies_later_and_comes_back_fails_no_prediction(redis: OwnRedis, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING, "servegraph"):
        step = begin(Often, redis.uri)
        ask(step)
        redis.kill()
        until(lambda: "cannot save it, will try again" in caplog.text)
        assert [ask(step) for _ in range(20)] == [[[n]] for n in range(2, 22)]
        redis.start()
        until(lambda: "saved again after" in caplog.text)
        step.close()
    again = begin(Often, redis.uri)
    assert ask(again) == [[22]]
    again.close()


class Learns(Plain):
    def send_feedback(self, X: Any, names: Any, reward: float, truth: Any) -> None:
        self.n += 1


@pytest.mark.parametrize(
    ("component", "asked", "told"), [(Learns, "", True), (Plain, "", False), (Learns, "off", False)]
)
def test_component_that_learns_and_is_not_kept_is_told_of(
    store: str, caplog: pytest.LogCaptureFixture, component: type, asked: str, told: bool
) -> None:
    context = GraphContext()
    context.services[STATE_STORE] = store
    with caplog.at_level(logging.INFO):
        ComponentStep(context, "s", component, state_store=asked).post_init()
    assert ("Learns has no get_state and set_state" in caplog.text) is told
