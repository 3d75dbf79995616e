"""Three models vote on the cultivar of a wine; every prediction is recorded. ``train.py`` makes the models."""

from pathlib import Path
from typing import Any

import joblib

import servegraph

HERE = Path(__file__).parent


class SklearnModel(servegraph.V2ModelServer):
    """Any classifier that scikit-learn can load and that predicts classes."""

    example_inputs = ((13.2, 1.78, 2.14, 11.2, 100, 2.65, 2.76, 0.26, 1.28, 4.38, 1.05, 3.4, 1050),)

    def load(self) -> None:
        path, _ = self.get_model(".joblib")
        self.model = joblib.load(path)

    def predict(self, request: dict[str, Any]) -> list[int]:
        classes: list[int] = self.model.predict(request["inputs"]).tolist()
        return classes


function = servegraph.new_function("wine", project="examples")
function.spec.description = "Tells the cultivar of a wine (0, 1 or 2) from thirteen chemical measurements."
function.set_topology(
    "router",
    "servegraph.serving.VotingEnsemble",
    vote_type="classification",
    weights={"logistic": 2, "forest": 2, "bayes": 1},
)
for name in ("logistic", "forest", "bayes"):
    function.add_model(name, class_name=SklearnModel, model_path=str(HERE / "models" / name))
function.set_tracking((HERE / "records" / "predictions.jsonl").as_uri())
