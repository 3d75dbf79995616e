from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

from servegraph.errors import ModelLoadError
from servegraph.serving.seldon.component import Component
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.message import Message
from servegraph.serving.seldon.servers import MLFlowServer
from servegraph.serving.seldon.servers.mlflow_server import runs_code
from servegraph.serving.store_cache import tree_digest

pytest.importorskip("mlflow")
pytestmark = pytest.mark.filterwarnings("ignore::Warning:mlflow")

ROWS = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0]])
TABLE = pd.DataFrame(ROWS, columns=["a", "b"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "model"


def ask(server: MLFlowServer, payload: dict[str, Any]) -> Message:
    component = Component(server)
    component.load()
    answer = component.call("predict", payload)
    assert isinstance(answer, Message)
    return answer


def save_python(folder: Path, function: Any, **options: Any) -> None:
    pyfunc: Any = importlib.import_module("mlflow.pyfunc")
    # MLflow reads the type hints of the method, and warns of any that it cannot use.
    model = type("Mine", (pyfunc.PythonModel,), {"predict": lambda self, context, model_input: function(model_input)})
    pyfunc.save_model(str(folder), python_model=model(), pip_requirements=[], **options)


def test_mlflow_sklearn_model_needs_permission_and_then_predicts(folder: Path) -> None:
    import mlflow.sklearn

    model = LinearRegression().fit(ROWS, [0, 1, 2])
    mlflow.sklearn.save_model(model, str(folder), pip_requirements=[], serialization_format="cloudpickle")
    with pytest.raises(ModelLoadError, match=rf"a model of mlflow.sklearn is a pickle.*{tree_digest(folder)}"):
        MLFlowServer(str(folder)).load()
    server = MLFlowServer(str(folder), allow_pickle=True, sha256=tree_digest(folder))
    assert np.allclose(ask(server, {"data": {"ndarray": ROWS.tolist()}}).value, model.predict(ROWS))


def test_mlflow_table_as_answer_is_an_array_with_its_columns_as_names(folder: Path) -> None:
    save_python(folder, lambda rows: pd.DataFrame({"low": [0.25], "high": [0.75]}))
    answer = ask(MLFlowServer(str(folder), allow_pickle=True), {"data": {"ndarray": [[1.0]]}})
    assert np.array_equal(answer.value, [[0.25, 0.75]])
    assert answer.names == ["low", "high"]


def test_mlflow_xtype_chooses_what_the_model_is_handed(folder: Path) -> None:
    save_python(folder, lambda rows: np.array([f"{type(rows).__name__} {list(getattr(rows, 'columns', []))}"]))
    payload = {"data": {"names": ["a", "b"], "ndarray": [[1.0, 2.0]]}}
    assert ask(MLFlowServer(str(folder), allow_pickle=True), payload).value[0] == "ndarray []"
    assert ask(MLFlowServer(str(folder), "dataframe", allow_pickle=True), payload).value[0] == "DataFrame ['a', 'b']"
    records = {"jsonData": [{"a": 1, "b": 2}]}
    assert ask(MLFlowServer(str(folder), allow_pickle=True), records).value[0] == "DataFrame ['a', 'b']"


def test_mlflow_signature_gives_columns_and_types(folder: Path) -> None:
    from mlflow.models import infer_signature

    table = pd.DataFrame({"n": np.array([1, 2], "int32"), "x": np.array([0.5, 1.5], "float32")})
    save_python(folder, lambda rows: np.array([f"{rows.dtypes.to_dict()}"]), signature=infer_signature(table))
    server = MLFlowServer(str(folder), allow_pickle=True)
    expected = "{'n': dtype('int32'), 'x': dtype('float32')}"
    assert ask(server, {"data": {"ndarray": [[1, 2.5]]}}).value[0] == expected
    assert ask(server, {"data": {"names": ["x", "n"], "ndarray": [[2.5, 1]]}}).value[0] == expected
    with pytest.raises(SeldonMicroserviceException, match=r"takes the 2 columns \['n', 'x'\], and the request has 3"):
        ask(server, {"data": {"ndarray": [[1, 2, 3]]}})
    with pytest.raises(SeldonMicroserviceException, match="is not a table for this model"):
        ask(server, {"data": {"ndarray": [["a", "b"]]}})


def test_mlflow_booster_in_a_format_of_data_needs_no_permission(folder: Path) -> None:
    xgboost = pytest.importorskip("xgboost")
    import mlflow.xgboost

    booster = xgboost.train({"nthread": 1}, xgboost.DMatrix(TABLE, [0, 1, 2]), 2)
    mlflow.xgboost.save_model(booster, str(folder), pip_requirements=[], model_format="json")
    payload = {"data": {"names": ["a", "b"], "ndarray": ROWS.tolist()}}
    answer = ask(MLFlowServer(str(folder), "dataframe"), payload)
    assert np.allclose(answer.value, booster.predict(xgboost.DMatrix(TABLE)))
    (folder / "code.py").write_text("print('hello')")
    with pytest.raises(ModelLoadError, match=r"code.py in it is a pickle or code"):
        MLFlowServer(str(folder)).load()


@pytest.mark.parametrize(
    ("flavour", "own", "reason"),
    [
        ("{loader_module: mlflow.onnx}", "{}", ""),
        ("{loader_module: mlflow.onnx, code: code}", "{}", "brings Python code of its own"),
        ("{loader_module: mlflow.xgboost}", "{model_class: xgboost.sklearn.XGBClassifier}", ""),
        ("{loader_module: mlflow.xgboost}", "{model_class: subprocess.Popen}", "names the class subprocess.Popen"),
        ("{loader_module: my.own}", "{}", "a model of my.own is a pickle or brings code"),
    ],
)
def test_runs_code_tells_data_from_code(tmp_path: Path, flavour: str, own: str, reason: str) -> None:
    (tmp_path / "MLmodel").write_text(f"flavors:\n  python_function: {flavour}\n  xgboost: {own}\n")
    assert reason in runs_code(tmp_path)
    assert bool(runs_code(tmp_path)) == bool(reason)


def test_mlflow_folder_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="there is no MLmodel in it"):
        MLFlowServer(str(tmp_path)).load()
    (tmp_path / "MLmodel").write_text("flavors: {sklearn: {}}")
    with pytest.raises(ModelLoadError, match="it names no python_function flavour"):
        MLFlowServer(str(tmp_path)).load()
