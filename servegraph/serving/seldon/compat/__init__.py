"""What ``seldon_core`` has, under the names that components import; see `servegraph.serving.seldon.names`.

Here are names alone: what they stand for is in the modules of `servegraph.serving.seldon`.
"""

from __future__ import annotations

from servegraph.serving.seldon.compat.version import __version__
from servegraph.serving.seldon.storage import Storage

__all__ = ["Storage", "__version__"]
