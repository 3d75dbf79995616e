"""Images of components and functions: from a source folder to all that ``docker build`` needs."""

from servegraph.runtimes.packaging.context import BuildContext, write_build_context
from servegraph.runtimes.packaging.plan import BuildOptions

__all__ = ["BuildContext", "BuildOptions", "write_build_context"]
