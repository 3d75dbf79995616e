from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servegraph.errors import ModelLoadError
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.servers import ONNXServer

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

FLOAT, INT64, STRING = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.STRING
Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(nodes: list[Any], inputs: list[Any], outputs: list[Any]) -> Path:
        graph = onnx.helper.make_graph(nodes, "g", inputs, outputs)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, tmp_path / "model.onnx")
        return tmp_path

    return write


def value(name: str, kind: int, shape: list[Any]) -> Any:
    return onnx.helper.make_tensor_value_info(name, kind, shape)


def node(kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Any:
    return onnx.helper.make_node(kind, inputs, outputs, **attributes)


@pytest.fixture
def two_columns(save: Save) -> Path:
    """Two inputs of one column each; their sum and their difference."""
    nodes = [node("Sub", ["x", "y"], ["less"]), node("Add", ["x", "y"], ["more"])]
    shape = ["n", 1]
    names = [value(name, FLOAT, shape) for name in ("x", "y")]
    return save(nodes, names, [value("less", FLOAT, shape), value("more", FLOAT, shape)])


def test_onnx_one_input_takes_an_array_of_any_numbers(save: Save) -> None:
    folder = save([node("Neg", ["x"], ["y"])], [value("x", FLOAT, ["n", 2])], [value("y", FLOAT, ["n", 2])])
    server = ONNXServer(str(folder), threads=1)
    for rows in (np.array([[1, 2]]), np.array([[1.0, 2.0]]), [[1, 2]], {"x": [[1, 2]]}):
        answer = server.predict(rows, [])
        assert answer.tolist() == [[-1.0, -2.0]]
    assert answer.dtype == np.float32


def test_onnx_several_inputs_go_by_name_or_position(two_columns: Path) -> None:
    server = ONNXServer(str(two_columns), outputs="less")
    expected = [[-1.0], [4.0]]
    assert server.predict({"y": [[2], [3]], "x": [[1], [7]]}, []).tolist() == expected
    assert server.predict(np.array([[1, 2], [7, 3]]), []).tolist() == expected
    assert server.predict(np.array([[2, 1], [3, 7]]), ["y", "x"]).tolist() == expected


def test_onnx_several_outputs_are_a_json_object_unless_one_is_chosen(two_columns: Path) -> None:
    rows = np.array([[1, 2]])
    assert ONNXServer(str(two_columns)).predict(rows, []) == {"less": [[-1.0]], "more": [[3.0]]}
    assert ONNXServer(str(two_columns), "more").predict(rows, []).tolist() == [[3.0]]
    assert list(ONNXServer(str(two_columns), "more, less").predict(rows, [])) == ["more", "less"]


def test_onnx_names_that_are_not_there_are_errors_that_list_those_that_are(two_columns: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"it has no output 'lest'.*less"):
        ONNXServer(str(two_columns), "lest").load()
    with pytest.raises(ModelLoadError, match=r"onnxruntime has no 'CPU' here.*CPUExecutionProvider"):
        ONNXServer(str(two_columns), providers="CPU").load()
    server = ONNXServer(str(two_columns))
    with pytest.raises(SeldonMicroserviceException, match=r"inputs are \['x', 'y'\]; the request has \['x', 'z'\]"):
        server.predict({"x": [1], "z": [2]}, [])
    with pytest.raises(SeldonMicroserviceException, match="a JSON object with an array for each"):
        server.predict(np.array([[1]]), [])


def test_onnx_shapes_and_types_that_do_not_fit_are_the_callers_fault(save: Save) -> None:
    folder = save([node("Neg", ["x"], ["y"])], [value("x", INT64, ["n", 2])], [value("y", INT64, ["n", 2])])
    server = ONNXServer(str(folder))
    with pytest.raises(SeldonMicroserviceException, match=r"'x' takes the shape \['n', 2\]; the request has \[2\]"):
        server.predict([1, 2], [])
    with pytest.raises(SeldonMicroserviceException, match="takes numbers"):
        server.predict([["a", "b"]], [])
    with pytest.raises(SeldonMicroserviceException, match=r"takes the shape \['n', 2\]; the request has \[1, 3\]"):
        server.predict([[1, 2, 3]], [])


def test_onnx_texts_go_in_and_out(save: Save) -> None:
    folder = save([node("Identity", ["x"], ["y"])], [value("x", STRING, ["n"])], [value("y", STRING, ["n"])])
    server = ONNXServer(str(folder))
    assert list(server.predict("hello", [])) == ["hello"]
    assert list(server.predict(np.array(["a", "b"]), [])) == ["a", "b"]


def test_onnx_file_that_is_no_model_is_an_error_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ModelLoadError, match=r"model.onnx: onnxruntime \S+ cannot read it"):
        ONNXServer(str(tmp_path)).load()
