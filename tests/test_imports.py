"""``import servegraph`` is cheap: below its time budget, and without any optional package."""

from __future__ import annotations

import json
import subprocess
import sys

BUDGET_S = 0.1
HEAVY = ["numpy", "pandas", "grpc", "httpx", "starlette", "fastapi", "pydantic", "uvicorn", "click", "yaml"]

_PROBE = """
import json, sys, time
started = time.perf_counter()
import servegraph
took = time.perf_counter() - started
print(json.dumps({"took": took, "modules": sorted(sys.modules)}))
"""


def _import_once() -> tuple[float, set[str]]:
    run = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, check=True)
    answer = json.loads(run.stdout)
    return answer["took"], set(answer["modules"])


def test_import_servegraph_stays_within_its_time_budget() -> None:
    best = min(_import_once()[0] for _ in range(5))
    assert best < BUDGET_S, f"import servegraph took {best * 1000:.0f} ms at best"


def test_import_servegraph_brings_in_no_optional_package() -> None:
    _, modules = _import_once()
    assert "servegraph" in modules
    assert sorted(modules & set(HEAVY)) == []
