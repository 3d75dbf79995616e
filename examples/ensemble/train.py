"""Trains three kinds of models on the wine data that ship with scikit-learn, and writes each with its metadata."""

from pathlib import Path
from typing import Any

import joblib
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from servegraph.serving.model_metadata import save_model_spec

FOLDER = Path(__file__).parent / "models"

KINDS: dict[str, Any] = {
    "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    "forest": RandomForestClassifier(n_estimators=50, random_state=7),
    "bayes": GaussianNB(),
}


def split() -> list[Any]:
    """Features and cultivars: what the models see, what they do not see."""
    data = load_wine()
    parts: list[Any] = train_test_split(data.data, data.target, test_size=0.4, random_state=7, stratify=data.target)
    return parts


def train(folder: Path = FOLDER) -> dict[str, float]:
    """Write the models and their metadata into a folder; each model's accuracy on wines it has not seen."""
    data = load_wine()
    seen, unseen, seen_classes, unseen_classes = split()
    accuracies = {}
    for name, kind in KINDS.items():
        model = kind.fit(seen, seen_classes)
        (folder / name).mkdir(parents=True, exist_ok=True)
        joblib.dump(model, folder / name / "model.joblib")
        save_model_spec(
            folder / name,
            "model.joblib",
            inputs=[{"name": feature, "value_type": "float"} for feature in data.feature_names],
            outputs=[{"name": "cultivar", "value_type": "int"}],
            labels={"dataset": "wine"},
            framework="sklearn",
        )
        accuracies[name] = float(model.score(unseen, unseen_classes))
    return accuracies


if __name__ == "__main__":
    for name, accuracy in train().items():
        print(f"{name:<10} accuracy {accuracy:.3f} on unseen wines")
    print(f"written to {FOLDER}")
