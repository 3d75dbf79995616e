from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC, LinearSVC

from servegraph.errors import ModelLoadError
from servegraph.serving.seldon.component import Component
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.message import Message
from servegraph.serving.seldon.servers import SKLearnServer

ROWS = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [3.0, 0.0]])
LABELS = np.array(["low", "low", "high", "high"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    joblib.dump(LogisticRegression().fit(ROWS, LABELS), tmp_path / "model.joblib")
    return tmp_path


def ask(server: SKLearnServer, payload: dict[str, Any]) -> Message:
    component = Component(server)
    component.load()
    answer = component.call("predict", payload)
    assert isinstance(answer, Message)
    return answer


def test_sklearn_probabilities_come_with_the_classes_as_names_where_that_is_asked_for(folder: Path) -> None:
    payload = {"data": {"ndarray": [[0.0, 1.0], [3.0, 0.0]]}}
    assert ask(SKLearnServer(str(folder), allow_pickle=True), payload).names == ["t:0", "t:1"]  # as Seldon's
    answer = ask(SKLearnServer(str(folder), allow_pickle=True, name_classes=True), payload)
    assert answer.names == ["high", "low"]
    assert np.shape(answer.value) == (2, 2)
    assert np.allclose(np.sum(answer.value, axis=1), 1)


def test_sklearn_without_permission_is_refused_before_anything_is_unpickled(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (marker,)

    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Evil()))
    digest = hashlib.sha256((tmp_path / "model.pkl").read_bytes()).hexdigest()
    with pytest.raises(ModelLoadError, match=rf"model.pkl: it is a pickle.*{digest}"):
        SKLearnServer(str(tmp_path)).load()
    with pytest.raises(ModelLoadError, match="it is not loaded"):
        SKLearnServer(str(tmp_path), allow_pickle=True, sha256="0" * 64).load()
    assert not marker.exists()


def test_sklearn_constructor_takes_upstream_parameters_and_loads_nothing(folder: Path) -> None:
    server = SKLearnServer(model_uri=str(folder), method="decision_function")
    assert not server.ready
    assert SKLearnServer("x").method == "predict_proba"


def test_sklearn_first_request_loads_where_nobody_has(folder: Path) -> None:
    server = SKLearnServer(str(folder), allow_pickle=True)
    assert server.predict(ROWS, []).shape == (4, 2)
    assert server.ready


@pytest.mark.parametrize(("method", "expected"), [("predict", LABELS.tolist()), ("anything", LABELS.tolist())])
def test_sklearn_other_methods_are_predict(folder: Path, method: str, expected: list[str]) -> None:
    answer = ask(SKLearnServer(str(folder), method, allow_pickle=True), {"data": {"ndarray": ROWS.tolist()}})
    assert list(answer.value) == expected
    assert answer.names == []


def test_sklearn_decision_function_of_each_shape_has_names_only_where_columns_are_classes(tmp_path: Path) -> None:
    rows, labels = np.arange(16.0).reshape(8, 2), np.array([0, 0, 1, 1, 2, 2, 3, 3])
    for shape, width in (("ovr", 4), ("ovo", 6)):
        joblib.dump(SVC(decision_function_shape=shape).fit(rows, labels), tmp_path / "model.joblib")
        server = SKLearnServer(str(tmp_path), "decision_function", allow_pickle=True, name_classes=True)
        answer = ask(server, {"data": {"ndarray": rows.tolist()}})
        assert np.shape(answer.value) == (8, width)
        assert answer.names == (["0", "1", "2", "3"] if shape == "ovr" else [f"t:{i}" for i in range(6)])


def test_sklearn_model_without_the_method_cannot_be_loaded(tmp_path: Path) -> None:
    joblib.dump(LinearSVC().fit(ROWS, LABELS), tmp_path / "model.joblib")
    with pytest.raises(
        ModelLoadError,
        match=r"LinearSVC has no predict_proba; set the parameter method to decision_function or predict",
    ):
        SKLearnServer(str(tmp_path), allow_pickle=True).load()


def test_sklearn_wrong_number_of_features_is_the_callers_fault(folder: Path) -> None:
    server = SKLearnServer(str(folder), allow_pickle=True)
    with pytest.raises(SeldonMicroserviceException, match="takes 2 features, and the request has 3") as caught:
        ask(server, {"data": {"ndarray": [[1, 2, 3]]}})
    assert caught.value.status_code == 400
    with pytest.raises(SeldonMicroserviceException, match="not a JSON object"):
        ask(server, {"jsonData": {"a": 1}})


def fails(rows: Any) -> Any:
    raise ZeroDivisionError("inside of the model")


def test_sklearn_failing_predict_is_an_error_with_its_cause(tmp_path: Path) -> None:
    model = make_pipeline(FunctionTransformer(), LogisticRegression()).fit(ROWS, LABELS)
    model.steps[0][1].func = fails
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    with pytest.raises(ZeroDivisionError, match="inside of the model"):
        ask(SKLearnServer(str(tmp_path), allow_pickle=True), {"data": {"ndarray": ROWS.tolist()}})


def test_sklearn_columns_go_by_name_where_the_model_has_names(tmp_path: Path) -> None:
    table = pd.DataFrame(ROWS, columns=["a", "b"])
    model = LogisticRegression().fit(table, LABELS)
    joblib.dump(model, tmp_path / "model.joblib")
    server = SKLearnServer(str(tmp_path), allow_pickle=True)
    expected = model.predict_proba(table)
    swapped = {"data": {"names": ["b", "more", "a"], "ndarray": [[row[1], 9, row[0]] for row in ROWS.tolist()]}}
    assert np.allclose(ask(server, swapped).value, expected)
    assert np.allclose(ask(server, {"data": {"ndarray": ROWS.tolist()}}).value, expected)
    assert np.allclose(ask(server, {"data": {"names": ["x", "y"], "ndarray": ROWS.tolist()}}).value, expected)
    records = [{"b": row[1], "a": row[0]} for row in ROWS.tolist()]
    assert np.allclose(ask(server, {"jsonData": records}).value, expected)
    with pytest.raises(SeldonMicroserviceException, match=r"also needs the columns b; the request has \['a', 'c'\]"):
        ask(server, {"data": {"names": ["a", "c"], "ndarray": [[1, 2]]}})
    with pytest.raises(SeldonMicroserviceException, match="takes 2 features, and the request has 3"):
        ask(server, {"data": {"ndarray": [[1, 2, 3]]}})
    with pytest.raises(SeldonMicroserviceException, match="the array has 1 dimensions"):
        ask(server, {"data": {"ndarray": [1, 2]}})


def test_sklearn_text_is_one_sample_of_a_model_of_texts(tmp_path: Path) -> None:
    model = make_pipeline(CountVectorizer(), MultinomialNB()).fit(["good film", "bad film"], ["+", "-"])
    joblib.dump(model, tmp_path / "model.joblib")
    server = SKLearnServer(str(tmp_path), "predict", allow_pickle=True)
    assert list(ask(server, {"strData": "good"}).value) == ["+"]
    assert list(ask(server, {"data": {"ndarray": ["bad", "good"]}}).value) == ["-", "+"]


def test_sklearn_skops_needs_no_permission_but_trusts_no_unknown_type(tmp_path: Path) -> None:
    io = pytest.importorskip("skops.io")
    io.dump(LogisticRegression().fit(ROWS, LABELS), tmp_path / "model.skops")
    assert len(ask(SKLearnServer(str(tmp_path)), {"data": {"ndarray": ROWS.tolist()}}).value) == 4
    model = make_pipeline(FunctionTransformer(fails), LogisticRegression())
    io.dump(model, tmp_path / "model.skops")
    with pytest.raises(ModelLoadError, match=r"types that are not trusted: \S*fails. .*trusted_types"):
        SKLearnServer(str(tmp_path), "predict").load()
    SKLearnServer(str(tmp_path), "predict", trusted_types=f"{fails.__module__}.fails").load()


def test_sklearn_metadata_file_beside_the_model_is_its_metadata(folder: Path) -> None:
    assert SKLearnServer(str(folder)).init_metadata() == {}
    (folder / "metadata.yaml").write_text("name: iris\nversions: [v1]\n")
    assert SKLearnServer(str(folder)).init_metadata() == {"name": "iris", "versions": ["v1"]}
    assert SKLearnServer(str(folder / "model.joblib")).init_metadata()["name"] == "iris"


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: !!python/object/apply:os.system [true]", "a: [1"])
def test_sklearn_metadata_that_are_none_are_left_aside_and_logged(
    folder: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "metadata.yaml").write_text(text)
    assert SKLearnServer(str(folder)).init_metadata() == {}
    assert "metadata.yaml is left aside" in caplog.text


def test_sklearn_model_is_found_by_name_then_by_ending(tmp_path: Path) -> None:
    model = LogisticRegression().fit(ROWS, LABELS)
    with pytest.raises(ModelLoadError, match=r"there is no model in it; model.joblib, .* is looked for.*it is empty"):
        SKLearnServer(str(tmp_path), allow_pickle=True).load()
    joblib.dump(model, tmp_path / "iris.joblib")
    SKLearnServer(str(tmp_path), allow_pickle=True).load()
    (tmp_path / "other.pkl").write_bytes(b"")
    with pytest.raises(ModelLoadError, match=r"several files there end in .*it holds: iris.joblib, other.pkl"):
        SKLearnServer(str(tmp_path), allow_pickle=True).load()
    with pytest.raises(ModelLoadError, match=r"other.pkl: it cannot be loaded: EOFError"):
        SKLearnServer(str(tmp_path / "other.pkl"), allow_pickle=True).load()
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(ModelLoadError, match=r"x.txt: a model that ends in .joblib, .skops, .pkl or .pickle is needed"):
        SKLearnServer(str(tmp_path / "x.txt"), allow_pickle=True).load()


def test_sklearn_model_in_a_store_is_fetched(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    memory.pipe("/models/iris/model.joblib", (folder / "model.joblib").read_bytes())
    memory.pipe("/models/iris/metadata.yaml", b"name: far")
    try:
        server = SKLearnServer("memory://models/iris", allow_pickle=True, name_classes=True)
        assert server.init_metadata() == {"name": "far"}
        assert ask(server, {"data": {"ndarray": ROWS.tolist()}}).names == ["high", "low"]
    finally:
        memory.store.clear()
        memory.pseudo_dirs[:] = [""]
