from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from framework_modules import framework

from servegraph.errors import ModelLoadError
from servegraph.serving.seldon.component import Component
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.message import Message
from servegraph.serving.seldon.servers import PyTorchServer
from servegraph.serving.seldon.servers.primehub.pytorch import Model
from servegraph.serving.store_cache import tree_digest

torch = framework("torch")
pytestmark = pytest.mark.filterwarnings("ignore")  # those of the framework are about itself

ROWS = [[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]]
SOURCE = textwrap.dedent("""
    import torch
    from neighbour import WIDTH

    class PyTorchModel(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(WIDTH, 2)

        def forward(self, x):
            return self.layer(x)
""")


@pytest.fixture
def linear() -> Any:
    torch.manual_seed(7)
    return torch.nn.Linear(3, 2)


def expected(module: Any) -> Any:
    with torch.inference_mode():
        return module(torch.tensor(ROWS)).numpy()


def ask(server: Any, payload: dict[str, Any]) -> Message:
    component = Component(server)
    component.load()
    answer = component.call("predict", payload)
    assert isinstance(answer, Message)
    return answer


def test_torchscript_needs_no_permission(tmp_path: Path, linear: Any) -> None:
    torch.jit.script(linear).save(str(tmp_path / "model.pt"))
    answer = ask(PyTorchServer(str(tmp_path)), {"data": {"ndarray": ROWS}})
    assert np.allclose(answer.value, expected(linear))
    assert answer.names == ["t:0", "t:1"]
    assert np.allclose(
        ask(PyTorchServer(str(tmp_path)), {"data": {"ndarray": [[1, 2, 3]]}}).value, expected(linear)[:1]
    )


def test_exported_program_predicts_where_it_is_allowed(tmp_path: Path, linear: Any) -> None:
    rows = torch.export.Dim("rows", min=1, max=64)
    program = torch.export.export(linear, (torch.tensor(ROWS),), dynamic_shapes=({0: rows},))
    torch.export.save(program, str(tmp_path / "model.pt2"))
    with pytest.raises(ModelLoadError, match="an exported program may hold pickled objects"):
        PyTorchServer(str(tmp_path)).load()
    server = PyTorchServer(str(tmp_path), allow_pickle=True, sha256=tree_digest(tmp_path / "model.pt2"))
    assert np.allclose(ask(server, {"data": {"ndarray": ROWS}}).value, expected(linear))


class Scaled(torch.nn.Module):  # type: ignore[misc,name-defined,unused-ignore]
    def forward(self, x: Any, scale: Any) -> Any:
        return {"scaled": x * scale, "same": x}


class Halves(torch.nn.Module):  # type: ignore[misc,name-defined,unused-ignore]
    def forward(self, x: Any) -> Any:
        return x.to(torch.bfloat16) / 2, x


def test_json_object_is_the_arguments_and_several_outputs_are_one(tmp_path: Path) -> None:
    torch.jit.trace(Scaled(), (torch.ones(1, 2), torch.ones(1)), strict=False).save(str(tmp_path / "model.pt"))
    answer = ask(PyTorchServer(str(tmp_path)), {"jsonData": {"x": [[1, 2]], "scale": [2]}})
    assert (answer.kind, answer.value) == ("jsonData", {"scaled": [[2.0, 4.0]], "same": [[1.0, 2.0]]})
    torch.jit.trace(Halves(), torch.ones(1, 1)).save(str(tmp_path / "model.pt"))
    answer = ask(PyTorchServer(str(tmp_path)), {"data": {"ndarray": [[1]]}})
    assert answer.value == {"output_0": [[0.5]], "output_1": [[1.0]]}


def test_dtype_of_inputs_is_a_parameter(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Embedding(5, 2)).save(str(tmp_path / "model.pt"))
    for dtype in ("auto", "int64"):
        answer = ask(PyTorchServer(str(tmp_path), dtype=dtype), {"data": {"ndarray": [[1, 4]]}})
        assert np.shape(answer.value) == (1, 2, 2)
    with pytest.raises(ModelLoadError, match="the parameter dtype is 'float23'"):
        PyTorchServer(str(tmp_path), dtype="float23").load()
    with pytest.raises(SeldonMicroserviceException, match="the model takes numbers"):
        ask(PyTorchServer(str(tmp_path)), {"data": {"ndarray": [["a"]]}})


@pytest.fixture
def with_source(tmp_path: Path, linear: Any) -> Path:
    """Parameters beside their class, which imports a neighbour."""
    folder = tmp_path / "model"
    (folder / "neighbour").mkdir(parents=True)
    (folder / "neighbour" / "__init__.py").write_text("WIDTH = 3\n")
    (folder / "PyTorchModel.py").write_text(SOURCE)
    torch.save({f"layer.{key}": value for key, value in linear.state_dict().items()}, folder / "weights.pt")
    return folder


@pytest.mark.parametrize("server", [PyTorchServer, Model])
def test_parameters_need_permission_for_the_code_beside_them(with_source: Path, linear: Any, server: Any) -> None:
    digest = tree_digest(with_source)
    with pytest.raises(ModelLoadError, match=rf"PyTorchModel.py beside weights.pt is code.*{digest}"):
        server(str(with_source)).load()
    answer = ask(server(str(with_source), allow_pickle=True, sha256=digest), {"data": {"ndarray": ROWS}})
    assert np.allclose(answer.value, expected(linear))
    assert answer.names == ([] if server is Model else ["t:0", "t:1"])
    assert tree_digest(with_source) == digest


def test_parameters_without_their_class_are_an_error_that_says_what_is_needed(tmp_path: Path, linear: Any) -> None:
    torch.save(linear.state_dict(), tmp_path / "model.pt")
    with pytest.raises(ModelLoadError, match=r"it holds parameters alone, so one .py file with the class PyTorchModel"):
        PyTorchServer(str(tmp_path)).load()
    (tmp_path / "code.py").write_text("class OtherModel: pass\n")
    with pytest.raises(ModelLoadError, match=r"it has no class 'PyTorchModel'.*OtherModel"):
        PyTorchServer(str(tmp_path), allow_pickle=True).load()


class Touches:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_whole_module_is_a_pickle_and_runs_nothing_without_permission(tmp_path: Path, linear: Any) -> None:
    torch.save({"weights": Touches(tmp_path / "ran")}, tmp_path / "model.pt")
    with pytest.raises(ModelLoadError, match="it holds Python objects besides parameters"):
        PyTorchServer(str(tmp_path)).load()
    assert not (tmp_path / "ran").exists()
    torch.save(linear, tmp_path / "model.pt")
    with pytest.raises(ModelLoadError, match="it holds Python objects besides parameters"):
        PyTorchServer(str(tmp_path)).load()
    answer = ask(PyTorchServer(str(tmp_path), allow_pickle=True), {"data": {"ndarray": ROWS}})
    assert np.allclose(answer.value, expected(linear))


def test_file_that_is_no_model_is_an_error_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"no model")
    with pytest.raises(ModelLoadError, match=r"model.pt"):
        PyTorchServer(str(tmp_path), allow_pickle=True).load()


def test_primehub_takes_mlflow_folders_and_exactly_one_model(tmp_path: Path, linear: Any) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    torch.save(linear, tmp_path / "data" / "model.pth")
    server = Model(str(tmp_path), allow_pickle=True)
    answer = ask(server, {"data": {"ndarray": ROWS}})
    assert np.allclose(answer.value, expected(linear))
    assert (server.tags(), server.metrics(), server.class_names(), answer.names) == ({}, [], [], [])
    (tmp_path / "data" / "other.pt").write_bytes(b"")
    with pytest.raises(ModelLoadError, match=r"exactly one .pt or .pth file is needed.*model.pth, other.pt"):
        Model(str(tmp_path), allow_pickle=True).load()
