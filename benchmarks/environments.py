"""One virtual environment a peer, under `.envs/` in the checkout.

What belongs here: which version of a peer is measured, on which interpreter, and how it is installed.
What does not: how a peer is started (`http/servers.py`) or called in process (`inprocess/`).
"""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
import subprocess
from typing import IO

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
ENVIRONMENTS = CHECKOUT / ".envs"
INSTALL_SECONDS = 1500
DEBIAN_PYTHON = "/usr/bin/python3.11"


class NotRun(Exception):  # noqa: N818 - it is an outcome that is printed in the table, not a failure of the program
    """A peer that cannot take part, with the reason that the table prints."""


@dataclasses.dataclass(frozen=True, slots=True)
class Environment:
    """What a peer is installed from."""

    name: str
    """Name of the peer, and of its folder under `.envs/`."""
    requirements: tuple[str, ...]
    """What pip is given."""
    python: str = "3.11"
    """Minor version of the interpreter, or `debian` for the system's own Python 3.11."""

    @property
    def folder(self) -> pathlib.Path:
        """Where the environment is."""
        return ENVIRONMENTS / self.name

    @property
    def interpreter(self) -> pathlib.Path:
        """The environment's `python`."""
        return self.folder / "bin" / "python"

    @property
    def log(self) -> pathlib.Path:
        """What the last installation said."""
        return ENVIRONMENTS / f"{self.name}.log"

    @property
    def _stamp(self) -> pathlib.Path:
        return self.folder / ".installed"

    def installed(self) -> bool:
        """Whether exactly these requirements were installed to the end."""
        return self._stamp.is_file() and self._stamp.read_text() == self._description()

    def _description(self) -> str:
        return "\n".join([self.python, *self.requirements, ""])

    def ensure(self) -> pathlib.Path:
        """Make the environment if it is not there yet, and give its `python`.

        Raises:
            NotRun: the interpreter is missing or pip failed; the message says which.
        """
        if self.installed():
            return self.interpreter
        python = find_interpreter(self.python)
        ENVIRONMENTS.mkdir(exist_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        print(f"installing {self.name}: {' '.join(self.requirements)}", flush=True)
        with self.log.open("w") as log:
            self._run([python, "-m", "venv", str(self.folder)], log)
            pip = [str(self.interpreter), "-m", "pip", "install", "--no-input", "--prefer-binary"]
            self._run([*pip, *self.requirements], log)
        self._stamp.write_text(self._description())
        return self.interpreter

    def _run(self, command: list[str], log: IO[str]) -> None:
        try:
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, timeout=INSTALL_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise NotRun(f"installation took more than {INSTALL_SECONDS} s") from None
        except OSError as error:
            raise NotRun(f"installation failed: {error}") from None
        if done.returncode != 0:
            raise NotRun(f"installation failed: {self._last_error()} (see .envs/{self.log.name})")

    def _last_error(self) -> str:
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR:")]
        return (errors or lines or ["no output"])[-1][:200]


def find_interpreter(version: str) -> str:
    """Path of a Python of this minor version: by name on PATH, through pyenv, or Debian's own.

    Raises:
        NotRun: there is none.
    """
    if version == "debian":
        if _is_version(DEBIAN_PYTHON, "3.11"):
            return DEBIAN_PYTHON
        raise NotRun(f"needs Debian's own Python 3.11 at {DEBIAN_PYTHON}")
    named = shutil.which(f"python{version}")
    if named and _is_version(named, version):
        return named
    pyenv = shutil.which("pyenv")
    if pyenv:
        listed = _output([pyenv, "versions", "--bare"]).split()
        matching = [name for name in listed if name.startswith(f"{version}.") and "/" not in name]
        for name in reversed(matching):
            prefix = _output([pyenv, "prefix", name]).strip()
            candidate = str(pathlib.Path(prefix) / "bin" / f"python{version}")
            if prefix and _is_version(candidate, version):
                return candidate
    raise NotRun(f"no Python {version} on PATH or in pyenv")


def _is_version(python: str, version: str) -> bool:
    """Whether it runs and is that version: a pyenv shim has the name and may still refuse."""
    return _output([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).strip() == version


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


PEERS: dict[str, Environment] = {
    environment.name: environment
    for environment in (
        Environment("mlrun", ("mlrun==1.12.1",)),
        Environment("mlserver", ("mlserver==1.7.1",)),
        Environment("kserve", ("kserve==0.21.0",)),
        Environment("litserve", ("litserve==0.2.19", "numpy")),
        Environment("bentoml", ("bentoml==1.4.38", "numpy")),
        Environment("ray", ("ray[serve]==2.60.0", "numpy")),
        Environment("seldon", ("seldon-core==1.18.2", "setuptools<81"), python="3.9"),
        Environment("pytriton", ("nvidia-pytriton==0.7.0",), python="debian"),
    )
}
