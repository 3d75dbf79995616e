"""PrimeHub's example of a model server: what a component of one's own begins with."""

from __future__ import annotations

from typing import Any


class Model:
    """A model that says that it is there.

    Args:
        model_uri: where the model would be.
    """

    def __init__(self, model_uri: str | None = None) -> None:
        self.model_uri = model_uri
        self.ready = False
        self.load()

    def load(self) -> None:
        """Load the model, unless that is done: the constructor and the runtime both ask for it."""
        self.ready = True

    def predict(self, features: Any, feature_names: Any = None, meta: dict[str, Any] | None = None) -> str:
        """A greeting."""
        if not self.ready:
            self.load()
        return "Hello Model"
