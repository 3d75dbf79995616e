"""``seldon_core.imports_helper``: which optional packages there are."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

_TF_PRESENT: Final = find_spec("tensorflow") is not None
_GCS_PRESENT: Final = find_spec("gcsfs") is not None

__all__: Final[list[str]] = []
