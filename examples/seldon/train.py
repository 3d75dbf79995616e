"""Trains a classifier of breast tumours on the Wisconsin data, which ship with scikit-learn, and writes it."""

from pathlib import Path

import joblib
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FEATURES = ["mean radius", "mean texture", "mean smoothness", "mean concavity"]
FOLDER = Path(__file__).parent / "models"


def train(folder: Path = FOLDER) -> float:
    """Write the model into a folder; its accuracy on tumours it has not seen."""
    data = load_breast_cancer(as_frame=True)
    rows = data.data[FEATURES].to_numpy()
    seen, unseen, seen_classes, unseen_classes = train_test_split(
        rows, data.target, test_size=0.3, random_state=7, stratify=data.target
    )
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(seen, seen_classes)
    folder.mkdir(parents=True, exist_ok=True)
    joblib.dump(model, folder / "tumour.joblib")
    return float(model.score(unseen, unseen_classes))


if __name__ == "__main__":
    print(f"trained on breast tumours: accuracy {train():.3f} on unseen ones; written to {FOLDER}")
