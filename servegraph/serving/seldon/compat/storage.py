"""``seldon_core.storage``."""

from __future__ import annotations

from servegraph.serving.seldon.storage import Storage

__all__ = ["Storage"]
