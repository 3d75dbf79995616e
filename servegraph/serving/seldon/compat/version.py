"""``seldon_core.version``."""

from __future__ import annotations

from servegraph.serving.seldon.names import version

__version__ = version()

__all__ = ["__version__"]
