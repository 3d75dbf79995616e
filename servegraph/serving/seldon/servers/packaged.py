"""What the packaged servers have in common: where the model is, loading it once, and its metadata."""

from __future__ import annotations

import abc
import functools
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from servegraph.errors import ModelLoadError
from servegraph.serving.safe_yaml import read_yaml
from servegraph.serving.seldon.errors import SeldonNotImplementedError
from servegraph.serving.seldon.pickles import PicklePermission
from servegraph.serving.seldon.storage import local_model

logger = logging.getLogger("servegraph.serving.seldon")

METADATA_FILE = "metadata.yaml"


class PackagedServer(abc.ABC):
    """A component that serves a model it is told the place of.

    The model is loaded by `load`, which the runtime calls in each process that serves, or else by the first request:
    never by the constructor, whose process may be forked later.

    Args:
        model_uri: the model's file or folder: a path or what `servegraph.serving.seldon.storage` knows.
        allow_pickle: whether the model may be in a format that runs code when it is loaded; ``None`` leaves it to
            the server's operator.
        sha256: the digest that the model must have, in whatever format; empty for any.
    """

    FILES: ClassVar[tuple[str, ...]] = ()
    """The names of the model's file in its folder, the first that is there."""
    ENDINGS: ClassVar[tuple[str, ...]] = ()
    """The endings of a file that can be the model when it has none of these names."""

    def __init__(self, model_uri: str = "", *, allow_pickle: bool | None = None, sha256: str = "") -> None:
        self.model_uri = model_uri
        self.permission = PicklePermission(allow_pickle, sha256)
        self.ready = False
        self._loading = threading.RLock()

    def load(self) -> None:
        """Load the model, unless that is done.

        Raises:
            ModelLoadError: there is no such model, it may not be loaded, or it cannot be.
            MissingExtraError: the framework is not installed.
        """
        with self._loading:
            if not self.ready:
                self._load()
                self.ready = True

    def predict(self, features: Any, names: Sequence[str] | None = None, meta: dict[str, Any] | None = None) -> Any:
        """What the model says to the features.

        Args:
            features: the payload.
            names: the names of its columns, as far as the request has any.
            meta: what came with the request.

        Raises:
            SeldonMicroserviceException: the model cannot take such a payload.
        """
        if not self.ready:
            self.load()
        return self._predict(features, list(names) if names is not None else [])

    def class_names(self) -> list[str]:
        """The names of the answer's columns.

        Raises:
            SeldonNotImplementedError: the model has none.
        """
        raise SeldonNotImplementedError("class_names is not implemented")

    def tags(self) -> dict[str, Any]:
        """No tags of its own."""
        return {}

    def init_metadata(self) -> dict[str, Any]:
        """What ``metadata.yaml`` beside the model says; nothing if there is none, or none that can be read."""
        if not self.model_uri:
            return {}
        folder = self.path if self.path.is_dir() else self.path.parent
        file = folder / METADATA_FILE
        if not file.is_file():
            return {}
        try:
            found = read_yaml(file.read_bytes())
        except ValueError as exc:
            logger.warning("%s is left aside: %s", file, exc)
            return {}
        if not isinstance(found, dict):
            logger.warning("%s is left aside: it holds no mapping", file)
            return {}
        return found

    @functools.cached_property
    def path(self) -> Path:
        """The model's file or folder on this machine; it is fetched if it is elsewhere."""
        return local_model(self.model_uri)

    def model_file(self) -> Path:
        """The model's file: the one given, or in its folder that of one of the usual names or endings.

        Raises:
            ModelLoadError: there is none, or several; the message lists what is there.
        """
        return find_file(self.path, self.FILES, self.ENDINGS)

    @abc.abstractmethod
    def _load(self) -> None:
        """Load the model; called once."""

    @abc.abstractmethod
    def _predict(self, features: Any, names: list[str]) -> Any:
        """What the model says; called when it is loaded."""


def find_file(path: Path, names: Sequence[str], endings: Sequence[str]) -> Path:
    """The model's file in a folder, or the file itself.

    Raises:
        ModelLoadError: there is none, or several; the message lists what is there.
    """
    if path.is_file():
        if path.name not in names and not path.name.endswith(tuple(endings)):
            raise ModelLoadError(f"{path}: a model that ends in {_either(endings)} is needed")
        return path
    for name in names:
        if (path / name).is_file():
            return path / name
    visible = sorted(each.name for each in path.iterdir() if not each.name.startswith("."))
    fitting = [name for name in visible if name.endswith(tuple(endings)) and (path / name).is_file()]
    if len(fitting) == 1:
        return path / fitting[0]
    held = f"it holds: {', '.join(visible[:20])}" if visible else "it is empty"
    problem = f"several files there end in {_either(endings)}" if fitting else "there is no model in it"
    raise ModelLoadError(f"{path}: {problem}; {_either(names)} is looked for, or one that ends so; {held}")


def _either(words: Sequence[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
