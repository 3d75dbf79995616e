"""PrimeHub's server of TensorFlow 2 models."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Any

from servegraph.importing import import_extra
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.servers.tensorflow_server import TensorFlowServer


class Model(TensorFlowServer):
    """Serves a SavedModel by ``serving_default``, or a Keras file, also out of a folder that MLflow has saved.

    Bytes are an image: they become one sample of RGB values between 0 and 1.

    Args:
        model_uri: the model's folder.
        allow_pickle: whether a Keras model may run code of its own.
        sha256: the digest that the model must have.
    """

    def __init__(self, model_uri: str, *, allow_pickle: bool | None = None, sha256: str = "") -> None:
        super().__init__(model_uri, allow_pickle=allow_pickle, sha256=sha256)

    @functools.cached_property
    def path(self) -> Path:
        """The model on this machine: in a folder of MLflow's what autologging put it in."""
        folder = super().path
        if (folder / "MLmodel").is_file():
            for inner in (folder / "data" / "model", folder / "tfmodel"):
                if inner.is_dir():
                    return inner
        return folder

    def _predict(self, features: Any, names: list[str]) -> Any:
        return super()._predict(image_array(features) if isinstance(features, bytes) else features, names)


def image_array(data: bytes) -> Any:
    """The image in the bytes of a file: height, width and RGB values between 0 and 1, as the one sample of a batch.

    Raises:
        SeldonMicroserviceException: they are no image.
    """
    np = import_extra("numpy", feature="images as input", extra="numpy")
    pil = import_extra("PIL.Image", feature="images as input", extra="images")
    try:
        image = pil.open(io.BytesIO(data)).convert("RGB")
    except (OSError, ValueError, SyntaxError) as exc:
        raise SeldonMicroserviceException(f"the bytes are no image: {exc}") from exc
    return (np.asarray(image, dtype="float32") / 255.0)[np.newaxis, ...]
