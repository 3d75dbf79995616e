"""Models of LightGBM."""

from __future__ import annotations

from typing import Any

from servegraph.errors import ModelLoadError
from servegraph.importing import import_extra
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.servers.inputs import as_numbers, in_order
from servegraph.serving.seldon.servers.packaged import PackagedServer


class LightGBMServer(PackagedServer):
    """Serves a LightGBM booster: ``model.txt`` or ``.bst``, as ``save_model`` writes it.

    Args:
        model_uri: the model's file or folder.
        sha256: the digest that the file must have.
    """

    FILES = ("model.txt", "model.bst", "model.lgb")
    ENDINGS = (".txt", ".bst", ".lgb")

    def __init__(self, model_uri: str = "", *, sha256: str = "") -> None:
        super().__init__(model_uri, sha256=sha256)
        self._booster: Any = None

    def _load(self) -> None:
        lightgbm = import_extra("lightgbm", feature="serving a LightGBM model", extra="lightgbm")
        path = self.model_file()
        self.permission.check_digest(path)
        try:
            self._booster = lightgbm.Booster(model_file=str(path))
        except lightgbm.basic.LightGBMError as exc:
            raise ModelLoadError(f"{path}: LightGBM {lightgbm.__version__} cannot read it: {exc}") from exc

    def _predict(self, features: Any, names: list[str]) -> Any:
        array = as_numbers(features)
        if array.ndim != 2:
            raise SeldonMicroserviceException(
                f"the model takes rows of features; the array has {array.ndim} dimensions"
            )
        return self._booster.predict(in_order(array, names, self._booster.feature_name()))
