"""Whether a model in a pickle format may be loaded: loading one runs whatever code it holds.

A deployment says so for one component by its parameters ``allow_pickle`` and ``sha256``. Whoever runs the server may
say so for all of them by the server's setting ``allow_pickle`` (``--allow-pickle``, ``SERVEGRAPH_ALLOW_PICKLE``), which
`set_pickle_policy` makes known here; without a server the variable alone says it. What a component's own parameter
says wins, so that one can be kept strict where the others need not be.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from servegraph.errors import ModelLoadError, SettingsError
from servegraph.serving.store_cache import tree_digest
from servegraph.setting_values import coerce
from servegraph.settings import environment

ENV_ALLOW: Final = "SERVEGRAPH_ALLOW_PICKLE"


class PicklePolicy:
    """What the one who runs this process says about components that say nothing themselves."""

    def __init__(self) -> None:
        self.allowed: bool | None = None
        """``None`` leaves it to the environment."""


POLICY: Final = PicklePolicy()


def set_pickle_policy(allowed: bool | None) -> None:
    """Allow or refuse pickle formats for all components of this process; ``None`` leaves it to the environment."""
    POLICY.allowed = allowed


def pickle_allowed(parameter: bool | None = None) -> bool:
    """Whether pickle formats may be loaded, given what a component's ``allow_pickle`` says.

    Raises:
        SettingsError: ``SERVEGRAPH_ALLOW_PICKLE`` is neither true nor false.
    """
    if parameter is not None:
        return parameter
    if POLICY.allowed is not None:
        return POLICY.allowed
    text = environment().get(ENV_ALLOW, "")
    if not text:
        return False
    try:
        return bool(coerce(text, bool))
    except ValueError as exc:
        raise SettingsError(f"environment variable {ENV_ALLOW}: {exc}") from exc


@dataclass(frozen=True, slots=True)
class PicklePermission:
    """What one component's parameters say."""

    allow: bool | None = None
    """``None`` leaves it to the policy of the process."""
    sha256: str = ""
    """The digest that the model must have, in whatever format it is; empty for any."""

    def __post_init__(self) -> None:
        if self.allow is not None and not isinstance(self.allow, bool):
            raise ModelLoadError(f"allow_pickle is a BOOL, not {self.allow!r}")
        digits = self.sha256.lower() if isinstance(self.sha256, str) else "?"
        if digits and not (len(digits) == 64 and set(digits) <= set("0123456789abcdef")):
            raise ModelLoadError(f"sha256 is 64 hexadecimal digits, not {self.sha256!r}")

    @property
    def allowed(self) -> bool:
        """Whether pickle formats may be loaded."""
        return pickle_allowed(self.allow)

    def check(self, path: Path, what: str) -> None:
        """Let pass a file or folder whose loading runs code of its own; ``what`` says why, such as ``it is a pickle``.

        Raises:
            ModelLoadError: it is not allowed, with the digest and what allows it; or it has another digest.
        """
        self._check(path, tree_digest(path) if self.sha256 or not self.allowed else "", what)

    def check_digest(self, path: Path) -> None:
        """Let pass a file or folder of any format that has the digest given, if one is.

        Raises:
            ModelLoadError: it has another digest.
        """
        if self.sha256:
            self._compare(path, tree_digest(path))

    @contextlib.contextmanager
    def open(self, path: Path, what: str) -> Iterator[BinaryIO]:
        """A file in a pickle format, opened: what is then read is what was checked, though the path be replaced.

        Raises:
            ModelLoadError: as `check`.
        """
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest() if self.sha256 or not self.allowed else ""
            self._check(path, digest, what)
            file.seek(0)
            yield file

    def _check(self, path: Path, digest: str, what: str) -> None:
        if not self.allowed:
            raise ModelLoadError(
                f"{path}: {what}, so loading it runs whatever code it holds, and the deployment does not allow that. "
                f"Its SHA-256 is {digest}. Where you trust it, give the component the parameters "
                '{"name": "allow_pickle", "type": "BOOL", "value": "true"} and '
                f'{{"name": "sha256", "type": "STRING", "value": "{digest}"}}, or allow it for the whole server: '
                f"--allow-pickle or {ENV_ALLOW}=1"
            )
        if self.sha256:
            self._compare(path, digest)

    def _compare(self, path: Path, digest: str) -> None:
        if digest != self.sha256.lower():
            raise ModelLoadError(f"{path}: its SHA-256 is {digest}, not {self.sha256.lower()}: it is not loaded")
