"""Reading one value of a deployment: its type is checked, and what is wrong is told with its path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from servegraph.errors import SpecError, closest
from servegraph.graph.spec_fields import at, misfit, shown
from servegraph.serving.seldon.parameters import truth_of


class Section:
    """An object of the YAML, read key by key.

    Args:
        value: what stands at the path; ``None`` is an empty object.
        path: where it stands, from ``$``.
        what: what it is, for messages: ``a node``.

    Raises:
        SpecError: it is no object.
    """

    def __init__(self, value: Any, path: str, what: str) -> None:
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise misfit(path, f"{what} must be an object, not {shown(value)}")
        self.values: Mapping[str, Any] = value
        self.path = path
        self.what = what

    def at(self, key: str) -> str:
        """The path of a key."""
        return at(self.path, key)

    def only(self, valid: Sequence[str]) -> None:
        """Refuse keys that mean nothing; told with the nearest one that does."""
        for key in self.values:
            if key not in valid:
                raise misfit(self.at(key), f"{self.what} has no {key!r}; {closest(str(key), valid)}")

    def text(self, key: str, default: str = "") -> str:
        """A text; numbers and truth values that YAML made of one are taken back."""
        value = self.values.get(key)
        if value is None:
            return default
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, (int, float)):
            return str(value)
        if not isinstance(value, str):
            raise misfit(self.at(key), f"must be text, not {shown(value)}")
        return value

    def choice(self, key: str, valid: Sequence[str], default: str) -> str:
        """One of several words; upper and lower case are the same."""
        text = self.text(key, default)
        for word in valid:
            if word.lower() == text.lower():
                return word
        raise misfit(self.at(key), f"is {text!r}; {closest(text, valid)}")

    def whole(self, key: str, default: int = 0, least: int = 0, most: int = 2**31) -> int:
        """A whole number, also as text."""
        value = self.values.get(key)
        if value is None:
            return default
        if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
            value = int(value.strip()[:12])
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise misfit(self.at(key), f"must be a whole number from {least} to {most}, not {shown(value)}")
        return value

    def flag(self, key: str) -> bool:
        """A truth value, also as text."""
        value = self.values.get(key)
        if isinstance(value, bool):
            return value
        try:
            return truth_of(str(value if value is not None else "false"))
        except ValueError:
            raise misfit(self.at(key), f"must be true or false, not {shown(value)}") from None

    def texts(self, key: str) -> dict[str, str]:
        """An object of texts, such as annotations."""
        inner = Section(self.values.get(key), self.at(key), key)
        return {name: inner.text(name) for name in inner.values}

    def objects(self, key: str, what: str, *, single: bool = False) -> list[Section]:
        """A list of objects; with ``single`` one object is a list of one."""
        value = self.values.get(key)
        path = self.at(key)
        if value is None:
            return []
        if single and isinstance(value, Mapping):
            return [Section(value, path, what)]
        if not isinstance(value, list):
            raise misfit(path, f"must be a list, not {shown(value)}")
        return [Section(item, at(path, index), what) for index, item in enumerate(value)]

    def refuse(self, key: str, why: str) -> SpecError:
        """The error about the value of a key."""
        return misfit(self.at(key), why)
