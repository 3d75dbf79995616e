"""Serves the iris classifier that ``train.py`` makes: ``servegraph serve examples/iris/function.py``."""

from pathlib import Path
from typing import Any

import joblib

import servegraph


class Iris(servegraph.V2ModelServer):
    """Predicts the class of iris flowers (0 setosa, 1 versicolor, 2 virginica) from four lengths in centimetres."""

    example_inputs = ((5.1, 3.5, 1.4, 0.2),)

    def load(self) -> None:
        path, _ = self.get_model(".joblib")
        self.model = joblib.load(path)

    def predict(self, request: dict[str, Any]) -> list[int]:
        classes: list[int] = self.model.predict(request["inputs"]).tolist()
        return classes

    def explain(self, request: dict[str, Any]) -> list[dict[str, float]]:
        """The probability of each class."""
        names = self.get_param("class_names")
        return [dict(zip(names, row, strict=True)) for row in self.model.predict_proba(request["inputs"]).tolist()]


function = servegraph.new_function("iris", kind="serving")
function.spec.description = "Classifies iris flowers by the lengths of their sepals and petals."
function.set_topology("router")
function.add_model("iris", class_name=Iris, model_path=str(Path(__file__).parent / "models" / "iris"))
