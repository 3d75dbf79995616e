"""`fn.serve()` from a script, as a user runs it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from served_command import run

SCRIPT = """
import servegraph


class Double(servegraph.V2ModelServer):
    example_inputs = [1]

    def load(self):
        pass

    def predict(self, request):
        return [2 * x for x in request["inputs"]]


fn = servegraph.new_function("numbers")
fn.add_model("double", class_name=Double)
fn.set_tracking("file://" + __file__ + ".jsonl")
fn.serve(http_port=0)
print("stopped")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_in_a_script_says_where_and_ends_well_when_told_to(tmp_path: Path, number: signal.Signals) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        lines: list[str] = []
        while "try" not in (line := process.stderr.readline()):
            assert line, "".join(lines)
            lines.append(line)
        text = "".join(lines) + line
        match = re.search(r"URL +(http://127.0.0.1:\d+)\n", text)
        assert match is not None, text
        assert text.count("servegraph") == 1
        assert f"curl -s {match.group(1)}/v2/models/double/infer" in text
        request = urllib.request.Request(
            match.group(1) + "/v2/models/double/infer", b'{"inputs": [4]}', {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            assert json.loads(answer.read())["outputs"] == [8]
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "stopped\n"), err
    assert len(Path(f"{script}.jsonl").read_text().splitlines()) == 1


def test_serve_in_a_file_that_a_command_loads_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "function.py").write_text(SCRIPT)
    done = run("serve", "function.py", "--http-port", "0", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: {tmp_path / 'function.py'} calls fn.serve() while it is being loaded: the command serves the function "
        "itself; put the call under  if __name__ == '__main__':\n"
    )
