"""Models of XGBoost."""

from __future__ import annotations

from typing import Any

from servegraph.errors import ModelLoadError
from servegraph.importing import import_extra
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.servers.inputs import as_numbers, check_width, in_order
from servegraph.serving.seldon.servers.packaged import PackagedServer


class XGBoostServer(PackagedServer):
    """Serves an XGBoost booster: ``model.bst``, ``.json``, ``.ubj``.

    Args:
        model_uri: the model's file or folder.
        sha256: the digest that the file must have.
    """

    FILES = ("model.bst", "model.json", "model.ubj")
    ENDINGS = (".bst", ".json", ".ubj")

    def __init__(self, model_uri: str = "", *, sha256: str = "") -> None:
        super().__init__(model_uri, sha256=sha256)
        self._xgboost: Any = None
        self._booster: Any = None

    def _load(self) -> None:
        self._xgboost = import_extra("xgboost", feature="serving an XGBoost model", extra="xgboost")
        path = self.model_file()
        self.permission.check_digest(path)
        booster = self._xgboost.Booster()
        try:
            # As bytes the format is told by the content: .bst has been the ending of more than one.
            booster.load_model(bytearray(path.read_bytes()))
        except (self._xgboost.core.XGBoostError, ValueError) as exc:
            raise ModelLoadError(f"{path}: XGBoost {self._xgboost.__version__} cannot read it: {exc}") from exc
        self._booster = booster

    def _predict(self, features: Any, names: list[str]) -> Any:
        array = as_numbers(features)
        if array.ndim != 2:
            raise SeldonMicroserviceException(
                f"the model takes rows of features; the array has {array.ndim} dimensions"
            )
        wanted = self._booster.feature_names
        if wanted:
            array = in_order(array, names, wanted)
        else:
            check_width(array, self._booster.num_features())
        return self._booster.predict(self._xgboost.DMatrix(array, feature_names=wanted))
