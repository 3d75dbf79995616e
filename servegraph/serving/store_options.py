"""From where models may be fetched, how much, and how long it may take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from servegraph.errors import ModelLoadError

DEFAULT_SCHEMES = (
    "file", "http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hf", "v3io", "memory",
)  # fmt: skip
"""The schemes that need not be asked for: what can connect only to a store that the deployment has credentials for."""


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """The bounds of fetching a model."""

    schemes: tuple[str, ...] = DEFAULT_SCHEMES
    """The URI schemes a model may come from. ``file`` covers plain paths."""
    hosts: tuple[str, ...] | None = None
    """The hosts that ``http`` and ``https`` may fetch from, whatever their addresses; ``*.example.org`` is all hosts
    below a name. ``None`` is any host with a public address: those of private networks have to be listed."""
    sha256: str = ""
    """The digest the model must have, as 64 hexadecimal digits; empty for any."""
    max_bytes: int = 16 * 1024**3
    """The largest model, in bytes: of a file, of all files of a folder, and of what an archive holds."""
    max_files: int = 10_000
    """The most files and folders that a model's folder or archive may hold."""
    max_ratio: float = 100.0
    """How many times its own size an archive may unpack to, once that is more than 16 MiB."""
    timeout_s: float = 300.0
    """Seconds that fetching one file may take."""
    stall_s: float = 30.0
    """Seconds without a byte after which a download is given up."""
    extract: bool | None = None
    """Whether an archive is unpacked; ``None`` for: when a file with another ending is asked for."""
    ca_file: str | None = None
    """A file of certificate authorities to verify ``https`` with, in place of the system's."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Headers of each ``http`` and ``https`` request, such as ``Authorization``."""
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What is handed to the fsspec filesystem: credentials, endpoints …"""

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_files", "max_ratio", "timeout_s", "stall_s"):
            if not getattr(self, name) > 0:
                raise ModelLoadError(f"FetchOptions: {name} must be above 0, not {getattr(self, name)!r}")
        if self.sha256 and not (len(self.sha256) == 64 and set(self.sha256.lower()) <= set("0123456789abcdef")):
            raise ModelLoadError("FetchOptions: sha256 is 64 hexadecimal digits")

    @classmethod
    def from_parameters(cls, get_param: Callable[[str, Any], Any]) -> FetchOptions:
        """The options in a function's parameters: ``model_hosts``, ``model_schemes``, ``model_max_bytes`` and so on.

        Args:
            get_param: gives a parameter or its default. It must not read the parameters of a model's artifact:
                what is fetched may not widen from where it is fetched.

        Raises:
            ModelLoadError: a parameter cannot be read as its option.
        """
        given: dict[str, Any] = {}
        for each in fields(cls):
            value = get_param(f"model_{each.name}", None)
            if value is not None:
                given[each.name] = _read(each.name, value)
        return cls(**given)


def _read(name: str, value: Any) -> Any:
    """A parameter, which may have come as a text, as its option wants it."""
    where = f"parameter model_{name}"
    try:
        if name in ("schemes", "hosts"):
            parts = value.replace(",", " ").split() if isinstance(value, str) else list(value)
            if not all(isinstance(part, str) for part in parts):
                raise ModelLoadError(f"{where}: a list of texts is needed")
            return tuple(parts)
        if name in ("headers", "storage_options"):
            return dict(value)
        if name in ("max_bytes", "max_files"):
            return int(value)
        if name in ("max_ratio", "timeout_s", "stall_s"):
            return float(value)
    except (TypeError, ValueError, AttributeError) as exc:
        raise ModelLoadError(f"{where}: {value!r} cannot be read: {exc}") from exc
    wanted = bool if name == "extract" else str
    if not isinstance(value, wanted):
        raise ModelLoadError(f"{where}: a {wanted.__name__} is needed, not {value!r}")
    return value


def host_is_listed(host: str, hosts: Iterable[str]) -> bool:
    """Whether a host is one of, or below one of, the hosts that are allowed."""
    host = host.lower().rstrip(".")
    for each in hosts:
        allowed = each.lower().rstrip(".")
        if host == allowed or (allowed.startswith("*.") and host.endswith(allowed[1:])):
            return True
    return False
