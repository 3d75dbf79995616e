"""The further files of a model, such as a vocabulary or an encoder."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from servegraph.errors import ModelLoadError, closest
from servegraph.importing import import_extra


class ExtraFile(os.PathLike[str]):
    """A further file of a model, fetched when it is first used; ``open(extra["vocabulary"])`` works."""

    def __init__(self, name: str, uri: str, fetch: Callable[[], Path]) -> None:
        self.name = name
        self.uri = uri
        self._fetch = fetch

    @functools.cached_property
    def path(self) -> Path:
        """The local file or folder.

        Raises:
            ModelLoadError: it is not there, or its path leads out of the model's folder.
        """
        return self._fetch()

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"ExtraFile({self.name!r}, {self.uri!r})"

    def local(self) -> str:
        """The local path as text."""
        return str(self.path)

    def get(self, encoding: str | None = None) -> Any:
        """The content: bytes, or text where an encoding is given."""
        return self.path.read_text(encoding) if encoding else self.path.read_bytes()

    def download(self, target: str | os.PathLike[str]) -> None:
        """Copy the file to another local path."""
        shutil.copyfile(self.path, target)

    def as_df(self) -> Any:
        """The content as a pandas data frame, by its ending: csv, json or parquet."""
        ending = self.path.suffix.lower()
        readers = {".csv": "read_csv", ".json": "read_json", ".parquet": "read_parquet", ".pq": "read_parquet"}
        if ending not in readers:
            raise ModelLoadError(f"{self.uri}: a data frame cannot be read from it; {closest(ending, readers)}")
        pandas = import_extra("pandas", feature="reading a data frame", extra="pandas")
        return getattr(pandas, readers[ending])(self.path)
