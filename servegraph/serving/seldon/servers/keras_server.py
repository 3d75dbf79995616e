"""Models of Keras, on whichever backend it runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from servegraph.errors import ModelLoadError
from servegraph.importing import import_extra
from servegraph.serving.seldon.pickles import PicklePermission
from servegraph.serving.seldon.servers.inputs import as_numbers
from servegraph.serving.seldon.servers.packaged import PackagedServer


class KerasServer(PackagedServer):
    """Serves ``model.keras`` or ``.h5``.

    ``Lambda`` layers hold code of Python, so a model with one needs the permission for pickles.

    One output is answered as an array, several as a JSON object.

    Args:
        model_uri: the model's file or folder.
        allow_pickle: whether the model may run code of its own when it is loaded.
        sha256: the digest that the file must have.
    """

    FILES = ("model.keras", "model.h5")
    ENDINGS = (".keras", ".h5", ".hdf5")

    def __init__(self, model_uri: str = "", *, allow_pickle: bool | None = None, sha256: str = "") -> None:
        super().__init__(model_uri, allow_pickle=allow_pickle, sha256=sha256)
        self._model: Any = None

    def _load(self) -> None:
        self._model = read_keras(self.model_file(), self.permission)

    def _predict(self, features: Any, names: list[str]) -> Any:
        return call_keras(self._model, as_numbers(features))


def read_keras(path: Path, permission: PicklePermission) -> Any:
    """The Keras model in a file.

    Raises:
        ModelLoadError: it cannot be read, or holds code and may not.
    """
    keras = import_extra("keras", feature="serving a Keras model", extra="tensorflow")
    permission.check_digest(path)
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=not permission.allowed)
    except Exception as exc:  # the layers of a model may raise anything
        if not permission.allowed and "safe" in str(exc) and "Lambda" in str(exc):
            permission.check(path, "it has a Lambda layer, which is code")
        raise ModelLoadError(f"{path}: Keras {keras.__version__} cannot load it: {type(exc).__name__}: {exc}") from exc


def call_keras(model: Any, features: Any) -> Any:
    """What a Keras model says: an array, or a JSON object of several outputs.

    The model is called: its ``predict`` is meant for large sets, and sets up a loop over them each time.
    """
    keras = import_extra("keras", feature="serving a Keras model", extra="tensorflow")
    result = model(keras.ops.convert_to_tensor(features), training=False)
    if isinstance(result, Mapping):
        return {str(name): keras.ops.convert_to_numpy(each).tolist() for name, each in result.items()}
    if isinstance(result, (list, tuple)):
        return {f"output_{i}": keras.ops.convert_to_numpy(each).tolist() for i, each in enumerate(result)}
    return keras.ops.convert_to_numpy(result)
