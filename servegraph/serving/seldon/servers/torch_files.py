"""Files of PyTorch: what is in one, and the module that it stands for."""

from __future__ import annotations

import contextlib
import importlib.util
import pickle
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from servegraph.errors import ModelLoadError, ServegraphError, closest
from servegraph.serving.seldon.pickles import PicklePermission


def read_module(path: Path, permission: PicklePermission, class_name: str, device: str) -> Any:
    """The module in a file, on its device and ready to predict.

    Raises:
        ModelLoadError: it is none, may not be loaded, or lacks the class that its parameters are for.
    """
    import torch

    try:
        if path.suffix == ".pt2":
            permission.check(path, "an exported program may hold pickled objects")
            return torch.export.load(path).module().to(device)
        if _is_script(path):
            permission.check_digest(path)
            return torch.jit.load(str(path), map_location=device).eval()
        return _from_save(path, permission, class_name, device).to(device).eval()
    except ServegraphError:
        raise
    except Exception as exc:  # unpickling, and the code of the model's own class, may raise anything
        raise ModelLoadError(f"{path}: PyTorch cannot load it: {type(exc).__name__}: {exc}") from exc


def _is_script(path: Path) -> bool:
    """Whether a file is TorchScript: an archive with code in it, which is not Python's."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _from_save(path: Path, permission: PicklePermission, class_name: str, device: str) -> Any:
    """The module in what ``torch.save`` wrote: itself, or its parameters."""
    import torch

    sources = sorted(path.parent.glob("*.py"))
    if sources:
        permission.check(path.parent, f"{sources[0].name} beside {path.name} is code")
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError:
        if not sources:
            permission.check(path, "it holds Python objects besides parameters")
        with in_path(path.parent if sources else None):
            saved = torch.load(path, map_location=device, weights_only=False)
    if isinstance(saved, torch.nn.Module):
        return saved
    if isinstance(saved, dict) and "state_dict" in saved:
        saved = saved["state_dict"]
    if not isinstance(saved, dict):
        raise ModelLoadError(f"{path}: it holds a {type(saved).__name__}, which is no model")
    if len(sources) != 1:
        raise ModelLoadError(
            f"{path}: it holds parameters alone, so one .py file with the class {class_name} is needed beside it, "
            f"and there are {len(sources)}; or save the model with torch.jit.save"
        )
    module = run_source(sources[0])
    factory = getattr(module, class_name, None)
    if factory is None:
        raise ModelLoadError(f"{sources[0]}: it has no class {class_name!r}; {closest(class_name, vars(module))}")
    model = factory()
    model.load_state_dict(saved)
    return model


@contextlib.contextmanager
def in_path(folder: Path | None) -> Iterator[None]:
    """While it is entered, modules are also looked for in the folder, and nothing is written beside them."""
    wrote, added = sys.dont_write_bytecode, [] if folder is None else [str(folder)]
    sys.path[:0] = added
    sys.dont_write_bytecode = True  # what is written there would change the digest of the folder
    try:
        yield
    finally:
        sys.dont_write_bytecode = wrote
        for each in added:
            if each in sys.path:
                sys.path.remove(each)


def run_source(path: Path) -> ModuleType:
    """The module that a file of Python makes; it may import what is beside it.

    Raises:
        ModelLoadError: it is not one that can be imported.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ModelLoadError(f"{path}: it is no module of Python")
    module = importlib.util.module_from_spec(spec)
    with in_path(path.parent):
        # Pickles name it, and so it has to be found by its name.
        sys.modules.setdefault(path.stem, module)
        spec.loader.exec_module(module)
    return module
