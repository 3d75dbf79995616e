"""Trains two models on the diabetes data that ship with scikit-learn, and writes the table of features."""

from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from servegraph.serving.model_metadata import save_model_spec

FOLDER = Path(__file__).parent / "models"

KINDS: dict[str, Any] = {
    "linear": make_pipeline(StandardScaler(), Ridge(alpha=10.0)),
    "boosted": GradientBoostingRegressor(n_estimators=60, max_depth=2, random_state=7),
}


def train(folder: Path = FOLDER) -> dict[str, float]:
    """Write the table and the models; each model's typical error on patients it has not seen."""
    data = load_diabetes(as_frame=True, scaled=False)
    features, progression = data.data.rename_axis("patient"), data.target.rename("progression")
    folder.mkdir(parents=True, exist_ok=True)
    features.to_csv(folder / "patients.csv")
    progression.to_csv(folder / "progressions.csv", index=False)
    seen, unseen, seen_target, unseen_target = train_test_split(features, progression, test_size=0.3, random_state=7)
    errors = {}
    for name, kind in KINDS.items():
        model = kind.fit(seen.to_numpy(), seen_target)
        residuals = model.predict(unseen.to_numpy()) - unseen_target
        errors[name] = float(np.sqrt(np.mean(residuals**2)))
        (folder / name).mkdir(exist_ok=True)
        joblib.dump(model, folder / name / "model.joblib")
        save_model_spec(
            folder / name,
            "model.joblib",
            inputs=features,
            outputs=[{"name": "progression", "value_type": "float"}],
            parameters={"typical_error": errors[name]},
            framework="sklearn",
        )
    return errors


if __name__ == "__main__":
    for name, error in train().items():
        print(f"{name:<8} typical error {error:.1f} on unseen patients")
    print(f"written to {FOLDER}")
