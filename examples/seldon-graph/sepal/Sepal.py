"""Tells iris flowers apart by their sepals; an ordinary Seldon component."""

from __future__ import annotations

from typing import Any

from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

COLUMNS = slice(0, 2)


class Sepal:
    class_names: list[str]

    def load(self) -> None:
        data = load_iris()
        self.class_names = [str(name) for name in data.target_names]
        self.model = LogisticRegression(max_iter=1000).fit(data.data[:, COLUMNS], data.target)

    def predict(self, X: Any, names: list[str]) -> Any:
        return self.model.predict_proba(X[:, COLUMNS])

    def send_feedback(self, X: Any, names: list[str], reward: float, truth: Any, routing: int | None = None) -> None:
        print(f"sepal: reward {reward}")
