"""The application of a microservice in this process: what it is made of."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from served_grpc import asked, outcome

from servegraph.errors import GraphError
from servegraph.runtimes.local import LocalApplication
from servegraph.runtimes.seldon import command
from servegraph.runtimes.seldon.annotations import PodAnnotations
from servegraph.runtimes.seldon.command import MicroserviceCommand, resolve
from servegraph.runtimes.seldon.defaults import DEFAULTS
from servegraph.runtimes.seldon.microservice import (
    MicroserviceEndpoint,
    build_microservice,
    component_function,
    function_name,
)
from servegraph.runtimes.seldon.options import MicroserviceOptions
from servegraph.runtimes.worker_protocol import WorkerInfo
from servegraph.serving.seldon.environment import SeldonEnvironment
from servegraph.serving.seldon.proto import prediction_pb2 as pb
from servegraph.serving.seldon.proto import prediction_pb2_grpc
from servegraph.settings import load_settings

HERE = "test_seldon_microservice"


class Plain:
    def __init__(self, by: int = 1) -> None:
        self.by = by

    def predict(self, X: Any, names: Any) -> Any:
        return X


class WithService(Plain):
    started: list[str] = []  # noqa: RUF012 - read by the tests
    ended = threading.Event()

    def load(self) -> None:
        self.started.append("load")

    def custom_service(self) -> None:
        self.started.append(f"service, daemon: {threading.current_thread().daemon}")
        self.ended.set()


class WithBrokenService(WithService):
    ended = threading.Event()

    def custom_service(self) -> None:
        super().custom_service()
        raise RuntimeError("the port is taken")


class WithNoService(WithService):
    custom_service = "nothing that can be called"  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def _nothing_started() -> None:
    WithService.started.clear()


def application_of(options: MicroserviceOptions, worker: WorkerInfo | None = None) -> LocalApplication:
    settings = load_settings(overrides={"http_port": 0}, function=DEFAULTS)
    return build_microservice(options.to_dict(), settings, worker)


def live(application: LocalApplication, meanwhile: Callable[[], Any] = lambda: None) -> Any:
    """Start an application, do something on a thread, and end it."""

    async def run() -> Any:
        await application.startup()
        try:
            return await asyncio.to_thread(meanwhile)
        finally:
            await application.aclose()

    return asyncio.run(run())


def worker(slot: int, folder: Path) -> WorkerInfo:
    return WorkerInfo(slot, 1, 2, "127.0.0.1", 0, str(folder), 1, {})


@pytest.mark.parametrize(("offered", "edges"), [(True, {"grpc", "metrics"}), (False, {"metrics"})])
def test_application_has_an_edge_for_metrics_and_one_for_grpc_where_it_is_served(
    offered: bool, edges: set[str]
) -> None:
    application = application_of(MicroserviceOptions(f"{HERE}.Plain", grpc=offered))
    assert set(application.edges) == edges
    live(application)


def test_function_has_the_component_as_its_only_step_and_its_name() -> None:
    function = component_function(MicroserviceOptions("package.My_Model", [{"name": "a", "value": "b"}]))
    assert function.name == "my-model"
    assert list(function.graph.to_dict()["steps"]) == ["My_Model"]
    arguments = function.graph.to_dict()["steps"]["My_Model"]["class_args"]
    assert (arguments["component"], arguments["parameters"]) == ("package.My_Model", [{"name": "a", "value": "b"}])


def test_parameters_reach_the_class_typed() -> None:
    parameters = [{"name": "by", "value": "3", "type": "INT"}]
    application = application_of(MicroserviceOptions(f"{HERE}.Plain", parameters))
    direct = application.plane.plan.direct
    assert direct is not None
    assert direct.target.user_object.by == 3
    live(application)


def test_component_that_is_not_there_is_told() -> None:
    with pytest.raises(GraphError, match=r"has no 'Plane'.*Plain"):
        application_of(MicroserviceOptions(f"{HERE}.Plane"))


# -- a service of its own ----------------------------------------------------------------------------------------------


def test_service_of_its_own_is_a_thread_that_ends_with_the_process_and_starts_behind_load() -> None:
    live(application_of(MicroserviceOptions(f"{HERE}.WithService")), lambda: WithService.ended.wait(20))
    assert WithService.started == ["load", "service, daemon: True"]


@pytest.mark.parametrize(("slot", "count"), [(0, 2), (1, 1)])
def test_service_of_its_own_is_started_by_the_first_worker_alone(tmp_path: Path, slot: int, count: int) -> None:
    WithService.ended.clear()
    application = application_of(MicroserviceOptions(f"{HERE}.WithService"), worker(slot, tmp_path))
    live(application, lambda: slot == 1 or WithService.ended.wait(20))
    assert len(WithService.started) == count


def test_service_of_its_own_that_ends_with_an_error_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def logged() -> None:
        WithBrokenService.ended.wait(20)
        for thread in threading.enumerate():
            if thread.name == "custom service":
                thread.join(20)

    live(application_of(MicroserviceOptions(f"{HERE}.WithBrokenService")), logged)
    assert "the custom service of WithBrokenService has ended with an error" in caplog.text
    assert "RuntimeError: the port is taken" in caplog.text


def test_attribute_of_that_name_is_no_service() -> None:
    live(application_of(MicroserviceOptions(f"{HERE}.WithNoService")))
    assert WithService.started == ["load"]


# -- state -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "key"),
    [
        ({"unit_id": "u", "predictor_id": "p", "deployment_id": "d"}, "persistence_d_p_u"),
        ({}, "persistence_0_0_0"),
        ({"unit_id": "u"}, "persistence_0_0_u"),
    ],
)
def test_state_is_kept_under_the_name_that_seldon_used(unit: dict[str, str], key: str) -> None:
    endpoint = MicroserviceEndpoint(name="any", component=Plain, unit=unit)
    assert endpoint.state_key() == key


# -- what annotations and settings make of gRPC ------------------------------------------------------------------------


def sizes(monkeypatch: pytest.MonkeyPatch, annotations: PodAnnotations) -> dict[int, str]:
    """What messages of so many bytes are answered with, by the application that the command would serve."""
    monkeypatch.setattr(command, "pod_annotations", lambda: annotations)
    options, settings = resolve(MicroserviceCommand(f"{HERE}.Plain", (), {"grpc_port": 0}), SeldonEnvironment())
    application = build_microservice(options.to_dict(), settings, None)

    def ask(channel: Any) -> dict[int, str]:
        predict = prediction_pb2_grpc.ModelStub(channel).Predict
        messages = {size: pb.SeldonMessage(strData="x" * size) for size in (500, 2_000, 5_000_000, 9_000_000)}
        return {size: outcome(predict, message)[0] for size, message in messages.items()}

    return asked(application, ask)


@pytest.mark.parametrize(
    ("most", "refused"),
    [(None, {5_000_000, 9_000_000}), (1_000, {2_000, 5_000_000, 9_000_000}), (8_000_000, {9_000_000}), (10**12, set())],
)
def test_largest_message_is_that_of_the_annotation_or_four_mebibytes(
    monkeypatch: pytest.MonkeyPatch, most: int | None, refused: set[int]
) -> None:
    found = sizes(monkeypatch, PodAnnotations(most))
    assert {size for size, code in found.items() if code == "RESOURCE_EXHAUSTED"} == refused
    assert {code for size, code in found.items() if size not in refused} <= {"OK"}


@pytest.mark.parametrize(
    ("component", "name"),
    [
        ("My_Model2", "my-model2"),
        ("_Private", "private"),
        ("模型", "component"),
        ("ModÈle", "mod-le"),
        ("L" * 70, "l" * 63),
        (f"{'L' * 62}_x", "l" * 62),
    ],
)
def test_function_of_a_component_has_a_name_whatever_its_class_is_called(component: str, name: str) -> None:
    assert function_name(component) == name
    assert component_function(MicroserviceOptions(component=component)).name == name
