"""What a batch shows of how far it is."""

from __future__ import annotations

import io
import logging
import sys
from typing import Any

import pytest

import servegraph
from servegraph.errors import MissingExtraError
from servegraph.runtimes import batch_progress
from servegraph.runtimes.batch_progress import Progress


def job() -> Any:
    fn = servegraph.new_function("shown")
    fn.set_topology("flow").to(handler=lambda n: 1 // n).respond()
    return fn.to_job()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    job().run([1, 2, 0, 4], on_error="skip")
    assert "4/4" in terminal.getvalue()
    assert "1 failed" in terminal.getvalue()


def test_progress_elsewhere_is_lines_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(batch_progress, "LOG_EVERY_S", 0.0)
    caplog.set_level(logging.INFO, "servegraph.batch")
    job().run([1, 2, 0, 4], on_error="skip")
    messages = [r.getMessage() for r in caplog.records if r.name == "servegraph.batch"]
    assert len(messages) == 5
    assert messages[1].startswith("batch: 2 of 4 (50 %) rows, ")
    assert messages[-1].startswith("batch: ended after 4 of 4 (100 %) rows, 1 failed, ")
    assert capsys.readouterr().err == ""


def test_progress_on_a_terminal_without_tqdm_is_lines_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(batch_progress, "find_spec", lambda name: None)
    job().run([1, 2])
    assert terminal.getvalue() == ""


def test_progress_that_is_off_shows_nothing(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    caplog.set_level(logging.INFO, "servegraph.batch")
    job().run([1, 2], progress=False)
    assert (terminal.getvalue(), caplog.records) == ("", [])


def test_progress_that_is_asked_for_needs_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'servegraph\[batch\]'"):
        job().run([1], progress=True)


def test_progress_function_is_called_at_the_end_with_everything() -> None:
    calls: list[Progress] = []
    job().run(iter([1, 0, 3]), on_error="skip", progress=calls.append)
    assert (calls[0].rows, calls[0].total) == (1, None)
    assert (calls[-1].rows, calls[-1].failed) == (3, 1)
