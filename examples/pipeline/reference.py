"""The second server: where a progression stands among those of all patients, in percent."""

import bisect
from pathlib import Path

import servegraph

PROGRESSIONS = Path(__file__).parent / "models" / "progressions.csv"


class Percentile:
    """Of each progression the share of patients below it, from 0 to 100."""

    def __init__(self, file: str) -> None:
        lines = Path(file).read_text().split()
        self.known = sorted(map(float, lines[1:]))

    def do(self, progressions: list[float]) -> list[float]:
        return [round(100 * bisect.bisect_left(self.known, p) / len(self.known), 1) for p in progressions]


function = servegraph.new_function("reference", project="examples")
function.set_topology("flow", engine="sync").to(Percentile, name="percentile", file=str(PROGRESSIONS)).respond()
