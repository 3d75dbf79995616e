"""``servegraph invoke``: over HTTP and in process, bodies, headers, failures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from served_command import run

import servegraph
from servegraph.cli.main import main

CODE = """
import servegraph

def echo(event):
    event.body = {"body": event.body, "method": event.method, "kind": event.get_header("X-Kind"), "path": event.path}
    return event

def fail(body):
    raise ValueError("no luck")

def picked(event):
    what = event.body.get("do") if isinstance(event.body, dict) else None
    if what == "fail":
        fail(event.body)
    if what == "bytes":
        event.body = b"\\x00\\x01"
        return event
    if what == "text":
        event.body = "plain text"
        return event
    if what == "wait":
        import time
        time.sleep(5)
    if what == "nothing":
        return None
    return echo(event)

fn = servegraph.new_function("echo")
fn.set_topology("flow", engine="sync").to(name="picked", handler=picked, full_event=True).respond()
"""


@pytest.fixture
def target(tmp_path: Path) -> str:
    file = tmp_path / "echo_function.py"
    file.write_text(CODE)
    return str(file)


def invoke(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["invoke", *arguments], input=stdin)
    return result.exit_code, result.stdout, result.stderr


def test_answer_in_process_is_printed_as_indented_json(target: str) -> None:
    code, out, _ = invoke(target, "/some/where", "-d", '{"a": 1}', "-H", "X-Kind: blue")
    assert code == 0
    assert json.loads(out) == {"body": {"a": 1}, "method": "POST", "kind": "blue", "path": "/some/where"}
    assert out.startswith('{\n  "body"')


def test_body_comes_from_a_file_or_standard_input(target: str, tmp_path: Path) -> None:
    (tmp_path / "body.json").write_text("[1, 2]")
    assert json.loads(invoke(target, "/", "-d", f"@{tmp_path / 'body.json'}")[1])["body"] == [1, 2]
    assert json.loads(invoke(target, "/", "-d", "-", stdin='"typed"')[1])["body"] == "typed"
    assert json.loads(invoke(target)[1])["method"] == "GET"
    assert json.loads(invoke(target, "/", "-X", "put", "-d", "1")[1])["method"] == "PUT"


def test_text_bytes_and_no_result_are_printed_as_they_are(target: str) -> None:
    assert invoke(target, "/", "-d", '{"do": "text"}')[1] == "plain text\n"
    assert run("invoke", target, "/", "-d", '{"do": "bytes"}').stdout == "\x00\x01"
    code, out, err = invoke(target, "/", "-d", '{"do": "nothing"}')
    assert (code, out, err) == (0, "", "(no result)\n")


def test_failure_prints_the_problem_and_exits_with_1(target: str) -> None:
    done = run("invoke", target, "/", "-d", '{"do": "fail"}')
    assert done.returncode == 1
    assert done.stdout == ""
    assert '"status": 500' in done.stderr
    assert 'echo_function.py", line 9, in fail' in done.stderr, "the user's own traceback"
    assert done.stderr.rstrip().splitlines()[-1].startswith("Error: failed (500)")


def test_timeout_ends_a_call_in_process(target: str) -> None:
    code, _, err = invoke(target, "/", "-d", '{"do": "wait"}', "--timeout", "0.2")
    assert code == 1
    assert "failed (504)" in err
    assert "'picked'" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-d", "@gone.json"], "-d @gone.json: No such file"),
        (["-H", "novalue"], "-H takes 'NAME: VALUE', not 'novalue'"),
    ],
)
def test_wrong_options_are_told_in_one_message(target: str, arguments: list[str], message: str) -> None:
    code, _, err = invoke(target, "/", *arguments)
    assert code == 1
    assert message in err


class Times(servegraph.V2ModelServer):
    def load(self) -> None: ...

    def predict(self, request: dict[str, list[int]]) -> list[int]:
        return [2 * x for x in request["inputs"]]


def test_answer_and_problem_of_a_server_are_printed_alike() -> None:
    fn = servegraph.new_function("numbers")
    fn.add_model("double", class_name=Times)
    with fn.serve(http_port=0, block=False) as server:
        code, out, _ = invoke(server.url, "/v2/models/double/infer", "-d", '{"inputs": [4]}')
        assert code == 0
        assert json.loads(out)["outputs"] == [8]
        code, out, err = invoke(server.url, "/v2/models/doubl/infer", "-d", '{"inputs": [4]}')
        assert (code, out) == (1, "")
        assert '"status": 404' in err
        assert "did you mean 'double'?" in err


def test_server_that_is_away_is_one_message(free_port: int) -> None:
    code, _, err = invoke(f"http://127.0.0.1:{free_port}", "/")
    assert code == 1
    assert f"Error: http://127.0.0.1:{free_port} gave no answer" in err
