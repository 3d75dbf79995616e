from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from framework_modules import framework

from servegraph.errors import ModelLoadError
from servegraph.serving.seldon.component import Component
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.message import Message
from servegraph.serving.seldon.servers import KerasServer, TensorFlowServer
from servegraph.serving.seldon.servers.primehub.tensorflow2 import Model
from servegraph.serving.store_cache import tree_digest

tf = framework("tensorflow", "tensorflow-cpu")
keras = framework("keras", "tensorflow-cpu")
pytestmark = pytest.mark.filterwarnings("ignore")  # those of the framework are about itself

ROWS = [[1.0, 2.0], [3.0, 4.0]]


def ask(server: Any, payload: dict[str, Any]) -> Message:
    component = Component(server)
    component.load()
    answer = component.call("predict", payload)
    assert isinstance(answer, Message)
    return answer


def save_module(folder: Path, outputs: tuple[str, ...] = ("y",), *, factor: float = 2.0) -> Path:
    def call(x: Any) -> dict[str, Any]:
        return {name: x * factor * (i + 1) for i, name in enumerate(outputs)}

    module = tf.Module()
    module.call = tf.function(call, input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.call})
    return folder


def layers(width: int = 2) -> Any:
    keras.utils.set_random_seed(7)
    return keras.Sequential([keras.layers.Input((width,)), keras.layers.Dense(3, activation="softmax")])


def test_saved_model_is_called_by_its_signature(tmp_path: Path) -> None:
    save_module(tmp_path)
    server = TensorFlowServer(str(tmp_path), sha256=tree_digest(tmp_path))
    assert np.array_equal(ask(server, {"data": {"ndarray": [[1, 2]]}}).value, [[2, 4]])
    assert ask(server, {"jsonData": {"x": ROWS}}).value.tolist() == [[2, 4], [6, 8]]


def test_saved_model_of_numbered_versions_is_served_in_its_highest(tmp_path: Path) -> None:
    save_module(tmp_path / "9", factor=2)
    save_module(tmp_path / "10", factor=3)
    assert np.array_equal(ask(TensorFlowServer(str(tmp_path)), {"data": {"ndarray": [[1, 2]]}}).value, [[3, 6]])


def test_saved_model_outputs_are_all_or_those_chosen(tmp_path: Path) -> None:
    save_module(tmp_path, ("a", "b"))
    payload = {"data": {"ndarray": [[1, 1]]}}
    assert ask(TensorFlowServer(str(tmp_path)), payload).value == {"a": [[2.0, 2.0]], "b": [[4.0, 4.0]]}
    assert ask(TensorFlowServer(str(tmp_path), outputs="b"), payload).value.tolist() == [[4.0, 4.0]]
    with pytest.raises(ModelLoadError, match=r"its serving_default has no output 'c'"):
        TensorFlowServer(str(tmp_path), outputs="c").load()
    with pytest.raises(ModelLoadError, match=r"it has no signature 'other'.*serving_default"):
        TensorFlowServer(str(tmp_path), "other").load()


def test_saved_model_payload_that_does_not_fit_is_the_callers_fault(tmp_path: Path) -> None:
    server = TensorFlowServer(str(save_module(tmp_path)))
    for payload, message in (
        ({"data": {"ndarray": [[1, 2, 3]]}}, r"'x' takes the shape \(None, 2\); the request has \[1, 3\]"),
        ({"data": {"ndarray": [["a", "b"]]}}, "'x' takes float32"),
        ({"jsonData": {"z": [[1, 2]]}}, r"the model's inputs are \['x'\]"),
    ):
        with pytest.raises(SeldonMicroserviceException, match=message):
            ask(server, payload)


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
@pytest.mark.parametrize("server", [KerasServer, TensorFlowServer, Model])
def test_keras_files_predict_as_the_model(tmp_path: Path, name: str, server: Any) -> None:
    model = layers()
    model.save(tmp_path / name)
    answer = ask(server(str(tmp_path)), {"data": {"ndarray": ROWS}})
    assert np.allclose(answer.value, model.predict(np.array(ROWS), verbose=0), atol=1e-6)


def test_keras_model_of_several_outputs_answers_with_a_json_object(tmp_path: Path) -> None:
    given = keras.Input((2,))
    for outputs, names in (({"a": given, "b": given}, ["a", "b"]), ([given, given], ["output_0", "output_1"])):
        keras.Model(given, outputs).save(tmp_path / "model.keras")
        answer = ask(KerasServer(str(tmp_path)), {"data": {"ndarray": ROWS}})
        assert answer.value == dict.fromkeys(names, ROWS)


def test_keras_lambda_layer_is_code_and_needs_permission(tmp_path: Path) -> None:
    keras.Sequential([keras.layers.Input((2,)), keras.layers.Lambda(lambda x: x * 2)]).save(tmp_path / "model.keras")
    digest = tree_digest(tmp_path / "model.keras")
    with pytest.raises(ModelLoadError, match=rf"model.keras: it has a Lambda layer, which is code.*{digest}"):
        KerasServer(str(tmp_path)).load()
    answer = ask(KerasServer(str(tmp_path), allow_pickle=True, sha256=digest), {"data": {"ndarray": ROWS}})
    assert answer.value.tolist() == [[2.0, 4.0], [6.0, 8.0]]


def test_keras_file_that_is_no_model_is_an_error_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes(b"no model")
    with pytest.raises(ModelLoadError, match=r"model.keras: Keras \S+ cannot load it"):
        KerasServer(str(tmp_path)).load()


def test_primehub_takes_the_folders_of_mlflow(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    save_module(tmp_path / "tfmodel", factor=2)
    assert ask(Model(str(tmp_path)), {"data": {"ndarray": ROWS}}).value.tolist() == [[2, 4], [6, 8]]
    save_module(tmp_path / "data" / "model", factor=3)
    assert ask(Model(str(tmp_path)), {"data": {"ndarray": ROWS}}).value.tolist() == [[3, 6], [9, 12]]


def test_primehub_bytes_are_an_image(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    keras.Sequential([keras.layers.Input((2, 4, 3)), keras.layers.Flatten()]).save(tmp_path / "own.h5")
    packed = io.BytesIO()
    image.new("RGB", (4, 2), (255, 0, 51)).save(packed, "PNG")
    server = Model(str(tmp_path))
    answer = server.predict(packed.getvalue(), [])  # which loads it
    assert np.allclose(answer, [[1.0, 0.0, 0.2] * 8])
    with pytest.raises(SeldonMicroserviceException, match="the bytes are no image"):
        server.predict(b"no image", [])
