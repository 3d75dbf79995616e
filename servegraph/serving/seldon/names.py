"""The names that components import from ``seldon_core``, given by modules of ours where that package is absent.

`install_names` appends a finder to the import system. It is asked last, so that a package of that name, wherever it
is, is never shadowed; and where there is one, nothing of ours is mixed into it.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

from servegraph.errors import closest

PACKAGE: Final = "seldon_core"

COMPATIBLE: Final = "1.18.2"
"""The release whose names these are."""

_COMPAT: Final = "servegraph.serving.seldon.compat"
_PROTO: Final = "servegraph.serving.seldon.proto"
# What runs servers and clients is above this layer, and named only: nothing here depends on it.
_ABOVE: Final = "servegraph.runtimes.seldon.compat"

MODULES: Final[Mapping[str, str]] = {
    "api_tester": f"{_ABOVE}.api_tester",
    "batch_processor": f"{_ABOVE}.batch_processor",
    "env_utils": f"{_COMPAT}.env_utils",
    "flask_utils": f"{_COMPAT}.flask_utils",
    "imports_helper": f"{_COMPAT}.imports_helper",
    "metadata": f"{_COMPAT}.metadata",
    "metrics": f"{_ABOVE}.metrics",
    "microservice": f"{_ABOVE}.microservice",
    "microservice_tester": f"{_ABOVE}.microservice_tester",
    "proto.prediction_pb2": f"{_PROTO}.prediction_pb2",
    "proto.prediction_pb2_grpc": f"{_PROTO}.prediction_pb2_grpc",
    "seldon_client": f"{_COMPAT}.seldon_client",
    "seldon_methods": f"{_COMPAT}.seldon_methods",
    "serving_test_gen": f"{_COMPAT}.serving_test_gen",
    "storage": f"{_COMPAT}.storage",
    "user_model": f"{_COMPAT}.user_model",
    "utils": f"{_COMPAT}.utils",
    "version": f"{_COMPAT}.version",
    "wrapper": f"{_ABOVE}.wrapper",
}
"""For each module below ``seldon_core`` ours that stands for it; the two are one and the same object."""

PACKAGES: Final[Mapping[str, str]] = {"": _COMPAT, "proto": _PROTO}
"""For each package ours whose attributes it has."""

_lock = threading.Lock()


class SeldonPackage(ModuleType):
    """A package that finds nothing by itself; its modules are those of `MODULES`."""

    def __init__(self, name: str, ours: ModuleType) -> None:
        super().__init__(name, ours.__doc__)
        self._ours = ours
        self._prefix = name.partition(".")[2]

    def __getattr__(self, name: str) -> Any:
        """A name of ours; a module is imported when it is first asked for."""
        if name.startswith("__") and name != "__version__":
            raise AttributeError(name)
        path = f"{self._prefix}.{name}" if self._prefix else name
        if path in MODULES or path in PACKAGES:
            return importlib.import_module(f"{PACKAGE}.{path}")
        try:
            return getattr(self._ours, name)
        except AttributeError:
            valid = [*self.__dir__()]
            raise AttributeError(
                f"module {self.__name__!r} has no attribute {name!r}; {closest(name, valid)}"
            ) from None

    def __dir__(self) -> list[str]:
        """Its modules and its names."""
        prefix = f"{self._prefix}." if self._prefix else ""
        below = {path.removeprefix(prefix).partition(".")[0] for path in MODULES if path.startswith(prefix)}
        return sorted(below | set(getattr(self._ours, "__all__", ())))


class _SeldonLoader(Loader):
    """Hands out modules that are there already under another name."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        path = spec.name.partition(".")[2]
        if path in PACKAGES:
            return SeldonPackage(spec.name, importlib.import_module(PACKAGES[path]))
        module = importlib.import_module(MODULES[path])
        # The import system is about to write its own spec into the module: kept here, put back below.
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        if spec is not None and spec.loader_state is not None:
            module.__spec__ = spec.loader_state


class SeldonFinder(MetaPathFinder):
    """Finds ``seldon_core`` and what is below it, where nobody before did."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module of ours; None for any other name, and where the real package is there.

        Raises:
            ModuleNotFoundError: there is no such module; the message lists those that there are.
        """
        package, _, below = fullname.partition(".")
        if package != PACKAGE:
            return None
        if below in PACKAGES:
            if below and not _is_ours():
                return None
            return ModuleSpec(fullname, _LOADER, origin="servegraph", is_package=True)
        if not _is_ours():
            return None
        if below in MODULES:
            return ModuleSpec(fullname, _LOADER, origin="servegraph")
        raise ModuleNotFoundError(
            f"No module named {fullname!r}: servegraph has no such module of {PACKAGE}; "
            f"{closest(below, [*MODULES, *filter(None, PACKAGES)])}",
            name=fullname,
        )


_LOADER: Final = _SeldonLoader()


def _is_ours() -> bool:
    return isinstance(sys.modules.get(PACKAGE), SeldonPackage)


def install_names() -> None:
    """Have ``seldon_core`` and its modules found here when nothing else has them; done once, however often asked."""
    with _lock:
        if not any(isinstance(finder, SeldonFinder) for finder in sys.meta_path):
            sys.meta_path.append(SeldonFinder())


def version() -> str:
    """What ``seldon_core.__version__`` says: whose names these are, and whose code."""
    # The root package is above this layer, and there whenever this is.
    return f"{COMPATIBLE}+servegraph.{sys.modules['servegraph'].__version__}"
