"""From what a node names to what answers for it: its class, and its operations as functions of an event."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from servegraph.errors import GraphError, closest
from servegraph.graph.events import Event
from servegraph.serving.seldon.answers import RawAnswer
from servegraph.serving.seldon.flask_context import add_flask_hint
from servegraph.serving.seldon.message import KINDS, Message
from servegraph.serving.seldon.names import install_names
from servegraph.serving.seldon.rest import meta_from_rest
from servegraph.serving.seldon.servers.implementations import IMPLEMENTATIONS, server_class
from servegraph.serving.seldon.step import ComponentStep, message_of

_importing = threading.RLock()


def component_class(reference: Any, workdir: str | None) -> Any:
    """The class or object that a node's code is; what `ComponentStep` finds by its name is left to it.

    Args:
        reference: a class, an object, or a name: that of a packaged server, ``folder/File.py[:Class]``, or one that
            `find_component` knows.
        workdir: the folder that files are looked for in.

    Raises:
        GraphError: there is no such module, file or class.
    """
    if not isinstance(reference, str):
        return reference
    if reference in IMPLEMENTATIONS:
        return server_class(reference)
    file, colon, name = reference.partition(":")
    if file.endswith(".py"):
        module = _module_of(Path(workdir or ".", file))
        return _of_module(module, name if colon else Path(file).stem, reference)
    return reference


def _of_module(module: ModuleType, name: str, reference: str) -> Any:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            classes = [k for k, v in vars(module).items() if isinstance(v, type) and v.__module__ == module.__name__]
            raise GraphError(f"component {reference!r}: the file has no {name!r}; {closest(name, classes)}")
        found = getattr(found, part)
    return found


def _module_of(path: Path) -> ModuleType:
    """The module of a file, imported once under a name of its own: many components are called ``Model.py``."""
    file = path.expanduser().resolve()
    if not file.is_file():
        raise GraphError(f"there is no file {str(path)!r}")
    digest = hashlib.sha256(str(file).encode("utf-8", "surrogatepass")).hexdigest()[:10]
    name = f"servegraph_component_{re.sub(r'[^A-Za-z0-9_]', '_', file.stem)}_{digest}"
    with _importing:
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise GraphError(f"{str(path)!r} is not a Python file (.py)")
        if str(file.parent) not in sys.path:
            sys.path.insert(0, str(file.parent))
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        install_names()
        try:
            spec.loader.exec_module(module)
        except BaseException as exc:
            sys.modules.pop(name, None)
            if isinstance(exc, ImportError):
                add_flask_hint(exc)
            raise
        return module


def component_function(step: ComponentStep, op: str) -> Callable[[Event], Any]:
    """A function of the event whose body is the input of an operation; gives the `Message` of the answer."""
    if step.component.is_async:

        async def acall(event: Event) -> Message:
            event.path = op
            answered: Event = await step.do_event(event)  # type: ignore[misc]
            return _message(answered.body)

        return acall

    def call(event: Event) -> Message:
        event.path = op
        return _message(step.do_event(event).body)

    return call


def _message(answer: Message | RawAnswer) -> Message:
    """The message that a component's answer is; a low-level one may be without a payload."""
    if isinstance(answer, Message):
        return answer
    value = answer.value
    if isinstance(value, dict) and not any(kind in value for kind in KINDS):
        return Message(meta=meta_from_rest(value.get("meta", {})))
    return message_of(answer)
