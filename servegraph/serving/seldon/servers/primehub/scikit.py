"""PrimeHub's server of scikit-learn models."""

from __future__ import annotations

from pathlib import Path

from servegraph.serving.seldon.servers.sklearn_server import SKLearnServer


class Model(SKLearnServer):
    """Serves ``model.joblib``, or the ``model.pkl`` of a folder that MLflow has saved."""

    def model_file(self) -> Path:
        """The model's file.

        Raises:
            ModelLoadError: there is none; the message lists what is there.
        """
        by_mlflow = self.path / "model.pkl"
        if (self.path / "MLmodel").is_file() and by_mlflow.is_file():
            return by_mlflow
        return super().model_file()
