"""A server whose predictions are recorded to a stream that is dead: it answers, and it ends as it should."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from served_command import Served

APP = """
import servegraph


class Double(servegraph.V2ModelServer):
    def load(self):
        self.model = 2

    def predict(self, request):
        return [self.model * row[0] for row in request["inputs"]]


function = servegraph.new_function("app", kind="serving")
function.set_topology("router")
function.add_model("m", class_name=Double, model_path=".")
function.set_tracking("http://127.0.0.1:{port}/records")
"""


@pytest.mark.slow
@pytest.mark.parametrize("silent", [False, True], ids=["away", "silent"])
def test_server_with_a_dead_stream_answers_and_ends_well(tmp_path: Path, silent: bool) -> None:
    with socket.socket() as end:
        end.bind(("127.0.0.1", 0))
        if silent:
            end.listen()
        app = tmp_path / "app.py"
        app.write_text(APP.replace("{port}", str(end.getsockname()[1])))
        with Served(app, cwd=tmp_path) as server:
            for number in range(20):
                status, body = server.ask("/v2/models/m/infer", {"inputs": [[number]]})
                assert (status, body["outputs"]) == (200, [2 * number])
            assert server.stop() == 0, server.log()
