"""A Seldon component as people have written them for years: nothing in it knows of servegraph."""

import logging
import time
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from seldon_core.flask_utils import SeldonMicroserviceException
from seldon_core.user_model import SeldonResponse

logger = logging.getLogger(__name__)

FEATURES = ["mean radius", "mean texture", "mean smoothness", "mean concavity"]


class TumourModel:
    """The probabilities that a breast tumour is malignant or benign, from four measurements of its cells.

    Args:
        unsure_below: an answer is marked as unsure when its largest probability is below this.
    """

    def __init__(self, unsure_below: float = 0.8) -> None:
        self.unsure_below = unsure_below
        self.model: Any = None

    def load(self) -> None:
        self.model = joblib.load(Path(__file__).parent / "models" / "tumour.joblib")
        logger.info("the model is loaded")

    def predict(self, X: Any, names: list[str], meta: dict[str, Any] | None = None) -> SeldonResponse:
        started = time.perf_counter()
        probabilities = self.model.predict_proba(self.rows(X))
        took_ms = (time.perf_counter() - started) * 1000
        unsure = probabilities.max(axis=1) < self.unsure_below
        return SeldonResponse(
            data=probabilities,
            tags={"unsure": unsure.tolist()},
            metrics=[
                {"type": "COUNTER", "key": "tumours", "value": len(probabilities)},
                {"type": "GAUGE", "key": "unsure_share", "value": float(unsure.mean())},
                {"type": "TIMER", "key": "predict_proba", "value": took_ms},
            ],
        )

    def send_feedback(
        self, X: Any, names: list[str], reward: float, truth: Any, routing: int | None = None
    ) -> SeldonResponse:
        right = self.model.predict(self.rows(X)) == np.ravel(truth)
        counts = {"right": int(right.sum()), "wrong": int((~right).sum())}
        return SeldonResponse(
            data=[],
            metrics=[
                {"type": "COUNTER", "key": "known_tumours", "value": count, "tags": {"answer": answer}}
                for answer, count in counts.items()
            ],
        )

    def rows(self, X: Any) -> Any:
        rows = np.asarray(X, dtype=float)
        if rows.ndim != 2 or rows.shape[1] != len(FEATURES):
            raise SeldonMicroserviceException(f"each row needs {', '.join(FEATURES)}", status_code=400)
        return rows

    def class_names(self) -> list[str]:
        return ["malignant", "benign"]

    def tags(self) -> dict[str, Any]:
        return {"data": "wisconsin"}

    def health_status(self) -> dict[str, Any]:
        return {"loaded": self.model is not None}

    def init_metadata(self) -> dict[str, Any]:
        return {
            "name": "tumour",
            "versions": ["1.0"],
            "platform": "scikit-learn",
            "inputs": [{"messagetype": "ndarray", "schema": {"names": FEATURES, "shape": [4]}}],
            "outputs": [{"messagetype": "ndarray", "schema": {"names": self.class_names(), "shape": [2]}}],
        }
