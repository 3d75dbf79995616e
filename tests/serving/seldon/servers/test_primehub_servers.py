from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.dummy import DummyClassifier

from servegraph.errors import ModelLoadError
from servegraph.serving.seldon.component import Component
from servegraph.serving.seldon.message import Message
from servegraph.serving.seldon.servers.primehub import pytorch, scikit, skeleton, tensorflow2


def ask(server: Any, payload: dict[str, Any]) -> Message:
    component = Component(server)
    component.load()
    answer = component.call("predict", payload)
    assert isinstance(answer, Message)
    return answer


def constant(label: str) -> Any:
    return DummyClassifier(strategy="constant", constant=label).fit([[0], [1]], [label, "other"])


def test_skeleton_loads_in_its_constructor_and_answers_with_a_text() -> None:
    server = skeleton.Model()
    assert server.ready
    assert (ask(server, {"strData": "x"}).kind, server.predict(None)) == ("strData", "Hello Model")
    assert skeleton.Model(model_uri="/mnt/models").model_uri == "/mnt/models"
    server.ready = False
    server.predict(None, ["a"], {})
    assert server.ready


def test_scikit_takes_the_pickle_of_an_mlflow_folder_before_the_usual_file(tmp_path: Path) -> None:
    joblib.dump(constant("joblib"), tmp_path / "model.joblib")
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(constant("pickle")))
    payload = {"data": {"ndarray": [[1]]}}
    assert "joblib" in ask(scikit.Model(str(tmp_path), allow_pickle=True, name_classes=True), payload).names
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    answer = ask(scikit.Model(str(tmp_path), allow_pickle=True, name_classes=True), payload)
    assert answer.names == ["other", "pickle"]
    assert np.array_equal(answer.value, [[0, 1]])
    (tmp_path / "model.pkl").unlink()
    assert "joblib" in ask(scikit.Model(str(tmp_path), allow_pickle=True, name_classes=True), payload).names


def test_scikit_follows_the_policy_for_pickles(tmp_path: Path) -> None:
    joblib.dump(constant("x"), tmp_path / "model.joblib")
    with pytest.raises(ModelLoadError, match="the deployment does not allow that"):
        scikit.Model(str(tmp_path)).load()


def test_constructors_load_nothing_and_tensorflow2_needs_its_place() -> None:
    assert not pytorch.Model("/not/there").ready
    assert not tensorflow2.Model("/not/there").ready
    with pytest.raises(TypeError, match="model_uri"):
        tensorflow2.Model()  # type: ignore[call-arg]


def test_image_array_is_one_sample_of_rgb_values_between_0_and_1(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.new("L", (2, 1), 51).save(tmp_path / "grey.png")
    array = tensorflow2.image_array((tmp_path / "grey.png").read_bytes())
    assert array.shape == (1, 1, 2, 3)
    assert np.allclose(array, 0.2)
