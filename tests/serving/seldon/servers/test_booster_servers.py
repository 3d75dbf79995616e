from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servegraph.errors import ModelLoadError
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.servers import LightGBMServer, XGBoostServer
from servegraph.serving.store_cache import tree_digest

ROWS = np.random.default_rng(7).normal(size=(60, 3))
LABELS = (ROWS[:, 0] > 0).astype(int)


def xgboost_model(names: list[str] | None = None, **parameters: Any) -> Any:
    xgboost = pytest.importorskip("xgboost")
    data = xgboost.DMatrix(ROWS, LABELS, feature_names=names)
    return xgboost.train({"objective": "binary:logistic", "nthread": 1, **parameters}, data, 3)


def lightgbm_model(names: Any = "auto", **parameters: Any) -> Any:
    lightgbm = pytest.importorskip("lightgbm")
    data = lightgbm.Dataset(ROWS, LABELS, feature_name=names)
    return lightgbm.train({"objective": "binary", "num_threads": 1, "verbose": -1, **parameters}, data, 3)


@pytest.mark.parametrize("name", ["model.json", "model.ubj", "mine.json"])
def test_xgboost_model_of_each_format_predicts_as_the_booster(tmp_path: Path, name: str) -> None:
    import xgboost

    booster = xgboost_model()
    booster.save_model(tmp_path / name)
    server = XGBoostServer(str(tmp_path))
    assert np.allclose(server.predict(ROWS, []), booster.predict(xgboost.DMatrix(ROWS)))
    assert server.predict(ROWS.tolist(), []).shape == (60,)


def test_xgboost_file_of_the_usual_name_is_told_by_its_content(tmp_path: Path) -> None:
    booster = xgboost_model()
    for raw_format in ("json", "ubj"):
        (tmp_path / "model.bst").write_bytes(bytes(booster.save_raw(raw_format)))
        assert XGBoostServer(str(tmp_path)).predict(ROWS, []).shape == (60,)


def test_xgboost_columns_go_by_name(tmp_path: Path) -> None:
    xgboost_model(["a", "b", "c"]).save_model(tmp_path / "model.json")
    server = XGBoostServer(str(tmp_path))
    expected = server.predict(ROWS, [])
    assert np.allclose(server.predict(ROWS[:, [2, 0, 1]], ["c", "a", "b"]), expected)
    with pytest.raises(SeldonMicroserviceException, match="also needs the columns b, c"):
        server.predict(ROWS, ["a", "x", "y"])


def test_xgboost_payload_that_does_not_fit_is_the_callers_fault(tmp_path: Path) -> None:
    xgboost_model().save_model(tmp_path / "model.json")
    server = XGBoostServer(str(tmp_path))
    for payload, message in (
        ([[1, 2]], "takes 3 features, and the request has 2"),
        ([1, 2, 3], "the array has 1 dimensions"),
        ([["a", "b", "c"]], "the model takes numbers"),
        (b"bytes", "not bytes"),
        (None, "not nothing"),
    ):
        with pytest.raises(SeldonMicroserviceException, match=message) as caught:
            server.predict(payload, [])
        assert caught.value.status_code == 400


def test_xgboost_file_that_is_no_model_is_an_error_with_its_path(tmp_path: Path) -> None:
    pytest.importorskip("xgboost")
    (tmp_path / "model.bst").write_bytes(b"no model")
    with pytest.raises(ModelLoadError, match=r"model.bst: XGBoost \S+ cannot read it"):
        XGBoostServer(str(tmp_path)).load()


def test_xgboost_digest_is_checked(tmp_path: Path) -> None:
    xgboost_model().save_model(tmp_path / "model.json")
    XGBoostServer(str(tmp_path), sha256=tree_digest(tmp_path / "model.json")).load()
    with pytest.raises(ModelLoadError, match="it is not loaded"):
        XGBoostServer(str(tmp_path), sha256="1" * 64).load()


@pytest.mark.parametrize("name", ["model.txt", "model.bst"])
def test_lightgbm_model_predicts_as_the_booster(tmp_path: Path, name: str) -> None:
    booster = lightgbm_model()
    booster.save_model(tmp_path / name)
    assert np.allclose(LightGBMServer(str(tmp_path)).predict(ROWS, []), booster.predict(ROWS))


def test_lightgbm_columns_go_by_name_and_widths_are_checked(tmp_path: Path) -> None:
    lightgbm_model(["a", "b", "c"]).save_model(tmp_path / "model.txt")
    server = LightGBMServer(str(tmp_path))
    assert np.allclose(server.predict(ROWS[:, [2, 0, 1]], ["c", "a", "b"]), server.predict(ROWS, []))
    with pytest.raises(SeldonMicroserviceException, match="takes 3 features, and the request has 2"):
        server.predict([[1, 2]], [])
    with pytest.raises(SeldonMicroserviceException, match="the array has 3 dimensions"):
        server.predict([[[1, 2, 3]]], [])


def test_lightgbm_many_classes_have_a_column_each(tmp_path: Path) -> None:
    lightgbm_model(objective="multiclass", num_class=3).save_model(tmp_path / "model.txt")
    assert LightGBMServer(str(tmp_path)).predict(ROWS, []).shape == (60, 3)


def test_lightgbm_file_that_is_no_model_is_an_error_with_its_path(tmp_path: Path) -> None:
    pytest.importorskip("lightgbm")
    (tmp_path / "model.txt").write_text("no model")
    with pytest.raises(ModelLoadError, match=r"model.txt: LightGBM \S+ cannot read it"):
        LightGBMServer(str(tmp_path)).load()
