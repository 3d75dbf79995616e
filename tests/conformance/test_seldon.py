"""Exchanges recorded from Seldon's own runtime, replayed against the real command."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "conformance" / "seldon"
CHECKER = FOLDER / "check.py"
EXCHANGES = {"REST": 146, "gRPC": 50}
STUBS = "servegraph.serving.seldon.proto"
MOST_S = 100

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not CHECKER.exists(),
        reason=f"needs the recorded exchanges in {FOLDER}: put the folder conformance/seldon there",
    ),
]


def replay(interface: str) -> str:
    """What the checker says of one interface; where something differs, with the logs of the servers."""
    command = f"{shlex.quote(sys.executable)} -m servegraph.cli.main microservice {{component}} --service-type"
    only = ["--stubs", STUBS, "--skip-rest"] if interface == "gRPC" else []
    with tempfile.NamedTemporaryFile("r") as log:
        ended = subprocess.run(
            [sys.executable, str(CHECKER), "--command", f"{command} {{service_type}}", *only],
            env={**os.environ, "CHECK_LOG": log.name},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=MOST_S,
            check=False,
        )
        return ended.stdout if ended.returncode == 0 else f"{ended.stdout}\n{log.read()}"


@pytest.fixture(scope="module")
def told() -> Iterator[dict[str, str]]:
    # Side by side: most of the time goes into starting one server after the other.
    with ThreadPoolExecutor(len(EXCHANGES)) as pool:
        yield dict(zip(EXCHANGES, pool.map(replay, EXCHANGES), strict=True))


@pytest.mark.parametrize("interface", EXCHANGES)
def test_recorded_exchanges_of_an_interface_all_agree(told: dict[str, str], interface: str) -> None:
    wanted = f"{interface}: {EXCHANGES[interface]} of {EXCHANGES[interface]} exchanges agree"
    assert wanted in told[interface], told[interface]
