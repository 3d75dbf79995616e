"""Models that MLflow has saved, of any flavour it can load as a function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from servegraph.errors import ModelLoadError, ServegraphError
from servegraph.importing import import_extra
from servegraph.serving.safe_yaml import read_yaml
from servegraph.serving.seldon.errors import SeldonMicroserviceException, SeldonNotImplementedError
from servegraph.serving.seldon.servers.inputs import as_array, columns_for, kind_of, plain
from servegraph.serving.seldon.servers.packaged import PackagedServer

_DATA_FLAVOURS = {"mlflow.onnx": "onnx", "mlflow.xgboost": "xgboost", "mlflow.lightgbm": "lightgbm"}
"""The loaders that read data and run nothing, and where the classes that they may make come from."""
_CODE_ENDINGS = (".pkl", ".pickle", ".joblib", ".cloudpickle", ".pth", ".pt", ".py", ".so")


class MLFlowServer(PackagedServer):
    """Serves a folder that MLflow has saved a model to (``MLmodel``), by its ``python_function`` flavour.

    Most flavours are pickles, or bring Python code of their own, and need the permission for that. ONNX models, and
    boosters of XGBoost and LightGBM in the formats of these libraries, do not.

    Args:
        model_uri: the model's folder.
        xtype: ``ndarray`` hands the model an array, anything else a table with the request's names as columns.
        allow_pickle: whether the model may run code of its own when it is loaded.
        sha256: the digest that the folder must have.
    """

    def __init__(
        self, model_uri: str = "", xtype: str = "ndarray", *, allow_pickle: bool | None = None, sha256: str = ""
    ) -> None:
        super().__init__(model_uri, allow_pickle=allow_pickle, sha256=sha256)
        self.xtype = xtype
        self._model: Any = None
        self._types: list[tuple[str, Any]] = []  # the signature's columns with their types
        self._names: list[str] = []

    def class_names(self) -> list[str]:
        """The columns of the table that the model answers with.

        Raises:
            SeldonNotImplementedError: it answers with none.
        """
        if not self._names:
            raise SeldonNotImplementedError("the model answers with no table")
        return self._names

    def _load(self) -> None:
        pyfunc = import_extra("mlflow.pyfunc", feature="serving an MLflow model", extra="mlflow")
        folder = self.path
        if not (folder / "MLmodel").is_file():
            raise ModelLoadError(f"{folder}: there is no MLmodel in it, so it is no model that MLflow has saved")
        reason = runs_code(folder)
        if reason:
            self.permission.check(folder, reason)
        else:
            self.permission.check_digest(folder)
        try:
            self._model = pyfunc.load_model(str(folder))
        except ServegraphError:
            raise
        except Exception as exc:  # it loads with any framework there is
            raise ModelLoadError(f"{folder}: MLflow cannot load it: {type(exc).__name__}: {exc}") from exc
        signature = getattr(self._model.metadata, "signature", None)
        schema = getattr(signature, "inputs", None)
        if schema is not None and not schema.is_tensor_spec() and schema.has_input_names():
            types = zip(schema.input_names(), schema.input_types(), strict=True)
            self._types = [(name, each) for name, each in types if hasattr(each, "to_numpy")]

    def _predict(self, features: Any, names: list[str]) -> Any:
        result = self._model.predict(self._input(features, names))
        columns = getattr(result, "columns", None)
        if columns is not None:
            self._names = [str(each) for each in columns]
        if hasattr(result, "to_numpy"):
            return result.to_numpy()
        return result if hasattr(result, "ndim") or isinstance(result, (str, bytes)) else plain(result)

    def _input(self, features: Any, names: list[str]) -> Any:
        records = isinstance(features, list) and bool(features) and isinstance(features[0], dict)
        if not (records or isinstance(features, (dict, str))) and self.xtype == "ndarray" and not self._types:
            return as_array(features)
        pandas = import_extra("pandas", feature="serving an MLflow model that takes a table", extra="pandas")
        try:
            if isinstance(features, dict) or records:
                table = pandas.DataFrame(features)
            elif isinstance(features, str):
                table = pandas.DataFrame([[features]])
            else:
                array = as_array(features)
                table = pandas.DataFrame(array, columns=self._columns(array, names))
            return self._typed(table)
        except (TypeError, ValueError) as exc:
            raise SeldonMicroserviceException(f"{kind_of(features)} is not a table for this model: {exc}") from exc

    def _columns(self, array: Any, names: list[str]) -> list[str] | None:
        width = array.shape[1] if array.ndim == 2 else 1
        wanted = [name for name, _ in self._types]
        if wanted and (not names or columns_for(names, wanted) is None):
            if width != len(wanted):
                raise SeldonMicroserviceException(
                    f"the model takes the {len(wanted)} columns {wanted}, and the request has {width}"
                )
            return wanted
        return names if len(names) == width else None

    def _typed(self, table: Any) -> Any:
        """The table with the types of the model's signature: JSON and protobuf know fewer."""
        for name, each in self._types:
            if name in table.columns and table[name].dtype != each.to_numpy():
                table[name] = table[name].astype(each.to_numpy())
        return table


def runs_code(folder: Path) -> str:
    """Why loading a folder of MLflow's may run code that is in it; empty when it holds nothing but data.

    Raises:
        ModelLoadError: its ``MLmodel`` cannot be read.
    """
    try:
        about = read_yaml((folder / "MLmodel").read_bytes())
        flavour = about["flavors"]["python_function"]
        loader = str(flavour["loader_module"])
    except (ValueError, KeyError, TypeError) as exc:
        raise ModelLoadError(f"{folder / 'MLmodel'}: it names no python_function flavour: {exc}") from exc
    if loader not in _DATA_FLAVOURS:
        return f"a model of {loader} is a pickle or brings code"
    if flavour.get("code"):
        return "it brings Python code of its own"
    own = about["flavors"].get(_DATA_FLAVOURS[loader]) or {}
    made = str(own.get("model_class") or f"{_DATA_FLAVOURS[loader]}.")
    if made.partition(".")[0] != _DATA_FLAVOURS[loader]:
        return f"it names the class {made}, which is not one of {_DATA_FLAVOURS[loader]}"
    files = sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file())
    code = [name for name in files if name.endswith(_CODE_ENDINGS)]
    return f"{code[0]} in it is a pickle or code" if code else ""
