"""Models of scikit-learn."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from servegraph.errors import ModelLoadError, ServegraphError
from servegraph.importing import import_extra
from servegraph.serving.seldon.errors import SeldonNotImplementedError
from servegraph.serving.seldon.pickles import PicklePermission
from servegraph.serving.seldon.servers.inputs import as_array, as_table, check_width, has_pandas, in_order
from servegraph.serving.seldon.servers.packaged import PackagedServer

_METHODS = ("predict_proba", "decision_function")


class SKLearnServer(PackagedServer):
    """Serves a scikit-learn estimator or pipeline: ``model.joblib``, ``.pkl``, ``.pickle`` or ``.skops``.

    A ``.skops`` file needs no permission for pickles.

    Args:
        model_uri: the model's file or folder.
        method: ``predict_proba`` or ``decision_function``; anything else is ``predict``.
        allow_pickle: whether a pickle may be loaded.
        sha256: the digest that the file must have.
        trusted_types: names of further types that a ``.skops`` file may hold, with commas between them.
        name_classes: whether the answer's columns are named by the model's classes; they are ``t:0``, ``t:1``, … else,
            as those of Seldon's server are.
    """

    FILES = ("model.joblib", "model.skops", "model.pkl", "model.pickle")
    ENDINGS = (".joblib", ".skops", ".pkl", ".pickle")

    def __init__(
        self,
        model_uri: str = "",
        method: str = "predict_proba",
        *,
        allow_pickle: bool | None = None,
        sha256: str = "",
        trusted_types: str = "",
        name_classes: bool = False,
    ) -> None:
        super().__init__(model_uri, allow_pickle=allow_pickle, sha256=sha256)
        self.method = method
        self.trusted_types = tuple(trusted_types.replace(",", " ").split())
        self.name_classes = name_classes
        self._model: Any = None
        self._call: Callable[[Any], Any] | None = None
        self._by_name: list[str] = []

    def class_names(self) -> list[str]:
        """The classes, where they are asked for and the answer has one column for each.

        Raises:
            SeldonNotImplementedError: they are not, or it has not.
        """
        if not self.name_classes:
            raise SeldonNotImplementedError("classes are no names unless the parameter name_classes says so")
        classes = getattr(self._model, "classes_", None)
        each_its_column = self._called() == "predict_proba" or (
            self._called() == "decision_function" and getattr(self._model, "decision_function_shape", "ovr") == "ovr"
        )
        if classes is None or not each_its_column or getattr(classes, "ndim", 0) != 1:
            raise SeldonNotImplementedError("the answer has no column for each class")
        return [str(each) for each in classes]

    @property
    def example_inputs(self) -> list[list[float]] | None:
        """A row of zeros, where the estimator tells how many columns it takes."""
        columns = getattr(self._model, "n_features_in_", None)
        return None if columns is None else [[0.0] * columns]

    def _called(self) -> str:
        return self.method if self.method in _METHODS else "predict"

    def _load(self) -> None:
        import_extra("sklearn", feature="serving a scikit-learn model", extra="sklearn")
        path = self.model_file()
        self._model = read_estimator(path, self.permission, self.trusted_types)
        call = getattr(self._model, self._called(), None)
        if not callable(call):
            there = [name for name in (*_METHODS, "predict") if callable(getattr(self._model, name, None))]
            raise ModelLoadError(
                f"{path}: its {type(self._model).__name__} has no {self._called()}; "
                f"set the parameter method to {' or '.join(there) or 'nothing: it cannot predict at all'}"
            )
        self._call = call
        fitted = getattr(self._model, "feature_names_in_", None)
        self._by_name = [str(name) for name in fitted] if fitted is not None and has_pandas() else []

    def _predict(self, features: Any, names: list[str]) -> Any:
        assert self._call is not None
        return self._call(self._input(features, names))

    def _input(self, features: Any, names: Sequence[str]) -> Any:
        if self._by_name:
            return as_table(features, names, self._by_name)
        array = as_array(features)
        fitted = getattr(self._model, "feature_names_in_", None)
        if fitted is not None:
            return in_order(array, names, list(fitted))
        count = getattr(self._model, "n_features_in_", None)
        if count is not None:
            check_width(array, int(count))
        return array


def read_estimator(path: Path, permission: PicklePermission, trusted_types: Sequence[str] = ()) -> Any:
    """The estimator in a file.

    Raises:
        ModelLoadError: it is a pickle and those are not allowed, it has another digest, or it cannot be read.
    """
    try:
        if path.suffix == ".skops":
            return _read_skops(path, permission, trusted_types)
        if path.suffix == ".joblib":
            joblib = import_extra("joblib", feature="loading a .joblib file", extra="sklearn")
            with permission.open(path, "a .joblib file is a pickle") as file:
                return joblib.load(file)
        with permission.open(path, "it is a pickle") as file:
            return pickle.load(file)  # noqa: S301 - only where the deployment allows it
    except ServegraphError:
        raise
    except Exception as exc:  # a pickle may raise anything
        raise ModelLoadError(f"{path}: it cannot be loaded: {type(exc).__name__}: {exc}") from exc


def _read_skops(path: Path, permission: PicklePermission, trusted_types: Sequence[str]) -> Any:
    skops = import_extra("skops.io", feature="loading a .skops file", extra="skops")
    permission.check_digest(path)
    unknown = sorted(set(skops.get_untrusted_types(file=path)) - set(trusted_types))
    if unknown:
        raise ModelLoadError(
            f"{path}: it holds types that are not trusted: {', '.join(unknown)}. "
            "Where they are, name them in the parameter trusted_types"
        )
    return skops.load(path, trusted=list(trusted_types))
