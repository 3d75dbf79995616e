"""An outlier detector that is trained beforehand: scikit-learn's isolation forest."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from servegraph.errors import ModelLoadError
from servegraph.importing import import_extra
from servegraph.serving.seldon.outliers.base import OutlierDetector
from servegraph.serving.seldon.outliers.reference import read_reference
from servegraph.serving.seldon.pickles import PicklePermission
from servegraph.serving.seldon.storage import local_model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from servegraph.serving.seldon.outliers.base import Rows, Scores

_ENDINGS: Final = (".pickle", ".joblib", ".pkl")


class IsolationForestDetector(OutlierDetector):
    """Finds rows that a forest of random cuts isolates quickly.

    The score is that of scikit-learn's ``decision_function``: rows below the threshold are outliers. The forest is a
    fitted one, which is a pickle and must be allowed (`pickles.py`), or it is fitted at start to reference rows.

    Args:
        threshold: rows with a smaller score are outliers.
        model_name: name of the forest's file, without its ending, in its folder.
        load_path: the folder of a fitted forest.
        model_uri: the file or folder of a fitted forest, wherever models may be.
        reference_uri: usual rows to fit a forest to: a ``.csv``, ``.npy`` or ``.npz`` file.
        n_estimators: trees of a forest that is fitted here.
        contamination: the share of outliers among the reference rows; ``auto`` takes scikit-learn's offset.
        seed: makes a forest that is fitted here the same in every worker.
        allow_pickle: whether a fitted forest may be loaded; where it is not given, the server's policy says.
        sha256: the digest that the file of a fitted forest must have.
        roll_window: of how many of the last labels the rolling scores are.
        push_frequency: seconds between two savings; read by persistence.

    Raises:
        ValueError: it is not said where the forest comes from, or an argument makes no sense.
    """

    score_metric = "anomaly_score"

    def __init__(
        self,
        threshold: float = 0.0,
        model_name: str = "if",
        load_path: str | None = None,
        model_uri: str | None = None,
        reference_uri: str | None = None,
        n_estimators: int = 100,
        contamination: float | str = "auto",
        seed: int = 0,
        allow_pickle: bool | None = None,
        sha256: str = "",
        roll_window: int = 100,
        push_frequency: float = 60.0,
    ) -> None:
        super().__init__(threshold, roll_window)
        given = [uri for uri in (model_uri, load_path, reference_uri) if uri]
        if len(given) != 1:
            raise ValueError(
                "an isolation forest needs one of the parameters model_uri or load_path (a fitted forest) and "
                f"reference_uri (rows to fit one to); got {len(given)} of them"
            )
        self._model_uri = model_uri or load_path
        self._model_name = model_name
        self._reference_uri = reference_uri
        self._permission = PicklePermission(allow_pickle, sha256)
        self._fitting = {
            "n_estimators": int(n_estimators),
            "contamination": contamination if contamination == "auto" else float(contamination),
            "random_state": int(seed),
        }
        self.push_frequency = push_frequency
        self._loading = threading.Lock()
        self._forest: Any = None

    def load(self) -> None:
        """Load the forest or fit it, if that was not done yet.

        Raises:
            ModelLoadError: there is no such file, it may not be loaded, or it is no forest.
            MissingExtraError: scikit-learn is not installed.
        """
        with self._loading:
            if self._forest is None:
                forest = self._loaded(self._model_uri) if self._model_uri else self._fitted(self._reference_uri or "")
                # Rows come as bare arrays; a forest that remembers names of columns warns of each of them.
                if hasattr(forest, "feature_names_in_"):
                    del forest.feature_names_in_
                self._forest = forest

    def _loaded(self, uri: str) -> Any:
        import_extra("sklearn", feature="an isolation forest", extra="sklearn")
        joblib = import_extra("joblib", feature="an isolation forest", extra="sklearn")
        path = self._file(local_model(uri))
        with self._permission.open(path, "it is a pickle") as file:
            forest = joblib.load(file)
        if not callable(getattr(forest, "decision_function", None)):
            raise ModelLoadError(f"{path}: a {type(forest).__name__} has no decision_function: it is no fitted forest")
        return forest

    def _file(self, path: Path) -> Path:
        if path.is_file():
            return path
        files = [path / f"{self._model_name}{ending}" for ending in _ENDINGS]
        found = next((file for file in files if file.is_file()), None)
        if found is None:
            raise ModelLoadError(f"{path}: there is none of {', '.join(file.name for file in files)}")
        return found

    def _fitted(self, uri: str) -> Any:
        ensemble = import_extra("sklearn.ensemble", feature="an isolation forest", extra="sklearn")
        return ensemble.IsolationForest(**self._fitting).fit(read_reference(local_model(uri)))

    def _scores(self, rows: Rows) -> Scores:
        if self._forest is None:
            self.load()
        if not len(rows):
            return self.numpy.zeros(0)  # type: ignore[no-any-return]
        known: Any = getattr(self._forest, "n_features_in_", rows.shape[1])
        self._check_width(rows, known)
        return self.numpy.asarray(self._forest.decision_function(rows))  # type: ignore[no-any-return]

    def _is_outlier(self, scores: Scores) -> NDArray[np.bool_]:
        return scores < self.threshold
