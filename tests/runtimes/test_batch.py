"""`fn.to_job().run(...)`: rows through a graph, with bounded read-ahead, in order, and every row accounted for."""

from __future__ import annotations

import asyncio
import random
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest

import servegraph
from servegraph.errors import (
    GraphError,
    ModelLoadError,
    RequestFailedError,
    SettingsError,
    StepError,
    UnprocessableError,
)
from servegraph.graph.events import Event
from servegraph.runtimes.batch_progress import Progress


class Double(servegraph.V2ModelServer):
    loads = 0
    closes = 0

    def load(self) -> None:
        type(self).loads += 1

    def predict(self, request: Any) -> Any:
        return [2 * sum(row) for row in request["inputs"]]

    def close(self) -> None:
        type(self).closes += 1
        super().close()


def flow(*handlers: Any, engine: str = "async") -> servegraph.ServingFunction:
    fn = servegraph.new_function("rows", project="p")
    step: Any = fn.set_topology("flow", engine=engine)
    for number, handler in enumerate(handlers):
        step = step.to(handler=handler, name=f"s{number}")
    if engine == "async":
        step.respond()
    return fn


def router() -> servegraph.ServingFunction:
    fn = servegraph.new_function("models", project="p")
    fn.add_model("double", class_name=Double)
    return fn


def odd_fails(body: Any) -> Any:
    if body % 2:
        raise ValueError(f"{body} is odd")
    return body


# -- what is sent -----------------------------------------------------------------------------------------------------


def test_run_frame_through_flow_sends_each_row_as_an_object() -> None:
    frame = pd.DataFrame({"a": [1, 2, 3], "b": [0.5, 1.5, 2.5]}, index=["x", "y", "z"])
    result = flow(lambda row: {"sum": row["a"] + row["b"], "whole": type(row["a"]).__name__}).to_job().run(frame)
    assert (result.rows, result.ok, result.failed, result.finished) == (3, 3, 0, True)
    assert result.outputs == [{"sum": 1.5, "whole": "int"}, {"sum": 3.5, "whole": "int"}, {"sum": 5.5, "whole": "int"}]
    assert frame.join(result.to_dataframe())["sum"].to_dict() == {"x": 1.5, "y": 3.5, "z": 5.5}


def test_run_frame_through_router_sends_lists_and_gives_an_output_for_each_row() -> None:
    frame = pd.DataFrame({"a": range(10), "b": range(10)})
    result = router().to_job().run(frame, rows_per_request=4)
    assert result.outputs == [4 * i for i in range(10)]
    assert result.output_rows == list(range(10))
    assert result.to_dataframe()["output"].tolist() == result.outputs


def test_run_with_model_uses_its_path_and_the_named_columns() -> None:
    fn = router()
    fn.add_model("other", class_name=Double)
    frame = pd.DataFrame({"name": ["x", "y"], "b": [1, 2], "a": [10, 20]})
    result = fn.to_job().run(frame, model="other", columns=["a"], outputs="answers")
    assert [a["outputs"] for a in result.outputs] == [[20], [40]]
    assert {a["model_name"] for a in result.outputs} == {"other"}


def test_run_with_model_in_a_flow_reaches_it_behind_other_steps() -> None:
    fn = servegraph.new_function("deep")
    graph = fn.set_topology("flow")
    graph.to(handler=lambda body: body, name="pass").to("*", name="models").respond()
    graph["models"].add_route("double", class_name=Double)
    assert fn.to_job().run([[1, 2], [3, 4]], model="double", body="inputs").outputs == [6, 14]


def test_run_with_unknown_model_names_those_there_are() -> None:
    with pytest.raises(SettingsError, match=r"no model 'dubble'; did you mean 'double'\?"):
        router().to_job().run([[1]], model="dubble")


def test_run_on_a_path_that_takes_names_sends_rows_by_name() -> None:
    seen: list[Any] = []

    class Named(Double):
        def reorder(self, request: Any) -> Any:
            seen.append(request["inputs"])
            return {**request, "inputs": [list(row.values()) for row in request["inputs"]]}

    fn = servegraph.new_function("named")
    fn.add_model("m", class_name=Named)
    result = fn.to_job().run(pd.DataFrame({"a": [1], "b": [2]}), path="/v2/models/m/infer_dict")
    assert (seen, result.outputs) == ([[{"a": 1, "b": 2}]], [6])


def test_run_iterable_sends_bodies_as_they_are() -> None:
    fn = router()
    result = fn.to_job().run([{"inputs": [[1], [2]]}, {"inputs": [[3]]}])
    assert [a["outputs"] for a in result.outputs] == [[2, 4], [6]]


def test_run_with_body_function_gets_the_row_or_the_group() -> None:
    fn = flow(lambda body: body)
    assert fn.to_job().run([1, 2, 3], body=lambda row: {"x": row}).outputs == [{"x": 1}, {"x": 2}, {"x": 3}]
    groups = fn.to_job().run([1, 2, 3], body=lambda rows: {"all": rows}, rows_per_request=2)
    assert groups.outputs == [{"all": [1, 2]}, {"all": [3]}]
    assert groups.output_rows == [0, 2]


def test_run_with_groups_of_rows_gives_one_output_each() -> None:
    result = flow(lambda rows: [r + 1 for r in rows]).to_job().run(range(7), rows_per_request=3)
    assert result.outputs == [1, 2, 3, 4, 5, 6, 7]


def test_run_with_answer_that_is_no_list_of_the_rows_says_so() -> None:
    with pytest.raises(RequestFailedError, match=r"rows 0 to 2 failed \(500\): .*outputs='answers'"):
        flow(sum).to_job().run(range(6), rows_per_request=3)
    assert flow(sum).to_job().run(range(6), rows_per_request=3, outputs="answers").outputs == [3, 12]


def test_event_of_a_row_says_where_it_came_from_and_when() -> None:
    fn = servegraph.new_function("events")
    seen: list[Event] = []

    def keep(event: Event) -> Event:
        seen.append(event)
        return event

    fn.set_topology("flow").to(handler=keep, full_event=True).respond()
    frame = pd.DataFrame({"t": ["2024-03-01T10:00:00", "2024-03-01T12:00:00+01:00"]})
    fn.to_job().run(frame, timestamp_column="t", path="/here")
    assert [(e.trigger.kind, e.offset, e.method, e.path) for e in seen] == [
        ("batch", 0, "POST", "/here"),
        ("batch", 1, "POST", "/here"),
    ]
    assert [str(e.time) for e in seen] == ["2024-03-01 10:00:00+00:00", "2024-03-01 11:00:00+00:00"]


@pytest.mark.parametrize("rows", [0, 1])
def test_run_of_no_or_one_row_ends_as_any_other(rows: int) -> None:
    frame = pd.DataFrame({"a": [1, 2]})[:rows]
    result = router().to_job().run(frame)
    assert (result.rows, result.ok, result.finished, result.outputs) == (rows, rows, True, [2][:rows])
    assert len(result.to_dataframe()) == rows


# -- order and back-pressure ------------------------------------------------------------------------------------------


def test_run_of_events_that_end_out_of_order_keeps_the_input_order() -> None:
    ended: list[int] = []

    async def waits(number: int) -> int:
        await asyncio.sleep(random.Random(number).random() / 100)
        ended.append(number)
        return number

    result = flow(waits).to_job().run(range(200), max_in_flight=20)
    assert result.outputs == list(range(200))
    assert ended != sorted(ended)


@pytest.mark.parametrize("is_async", [True, False], ids=["coroutine", "thread"])
def test_run_reads_the_source_only_as_far_as_it_may(is_async: bool) -> None:
    read = finished = running = most_running = most_ahead = 0
    lock = threading.Lock()

    def begin() -> None:
        nonlocal running, most_running
        with lock:
            running += 1
            most_running = max(most_running, running)

    def end(body: int) -> int:
        nonlocal running
        with lock:
            running -= 1
        return body

    async def waits(body: int) -> int:
        begin()
        await asyncio.sleep(0.0005)
        return end(body)

    def blocks(body: int) -> int:
        begin()
        threading.Event().wait(0.001)
        return end(body)

    def source() -> Iterator[int]:
        nonlocal read, most_ahead
        for number in range(300):
            read += 1
            most_ahead = max(most_ahead, read - finished)
            yield number

    def settled(progress: Progress) -> None:
        nonlocal finished
        finished = progress.rows

    class Counting:
        """Stands where a display does, without the limit on its calls."""

        def update(self, progress: Progress) -> None:
            settled(progress)

        def close(self, progress: Progress) -> None:
            settled(progress)

    import servegraph.runtimes.batch as batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "make_display", lambda wanted: Counting())
        result = flow(waits if is_async else blocks).to_job().run(source(), max_in_flight=5)
    assert result.outputs == list(range(300))
    assert most_running <= 5
    assert most_running > 1
    assert most_ahead == 5


def test_run_counts_work_behind_answers_as_in_flight() -> None:
    open_branches = most = done = 0

    async def side(body: Any) -> Any:
        nonlocal open_branches, most, done
        open_branches += 1
        most = max(most, open_branches)
        await asyncio.sleep(0.002)
        open_branches -= 1
        done += 1
        return body

    fn = servegraph.new_function("side")
    graph = fn.set_topology("flow")
    first = graph.to(handler=lambda body: body, name="first")
    first.to(handler=lambda body: body, name="answer").respond()
    first.to(handler=side, name="side")
    result = fn.to_job().run(range(40), max_in_flight=4)
    assert (result.ok, done, len(result.outputs)) == (40, 40, 40)
    assert most <= 4


def test_run_of_flow_without_responder_reports_what_fails() -> None:
    fn = servegraph.new_function("silent")
    fn.set_topology("flow").to(handler=odd_fails, name="check")
    result = fn.to_job().run(range(4), on_error="record")
    assert (result.ok, result.failed, result.unanswered, result.outputs) == (2, 2, 2, [])
    assert [e.row for e in result.errors] == [1, 3]


def test_run_starts_an_event_before_the_next_is_read() -> None:
    started = threading.Semaphore(0)

    def note(body: int) -> int:
        started.release()
        return body

    def source() -> Iterator[int]:
        for number in range(3):
            yield number
            assert started.acquire(timeout=5.0), f"event {number} waits for the next"

    assert flow(note).to_job().run(source()).outputs == [0, 1, 2]


# -- errors -----------------------------------------------------------------------------------------------------------


def test_run_with_failing_row_raises_with_its_number_and_keeps_what_was_done() -> None:
    job = flow(odd_fails).to_job()
    with pytest.raises(RequestFailedError, match=r"row 1 failed \(500\): .*ValueError: 1 is odd") as info:
        job.run(range(10), max_in_flight=3)
    body = {"row": 1, "error": "step 's0' failed: ValueError: 1 is odd", "status": 500, "step": "s0"}
    assert (info.value.status, info.value.body) == (500, body)
    assert isinstance(info.value.__cause__, StepError)
    assert isinstance(info.value.__cause__.__cause__, ValueError)
    assert job.result is not None
    assert (job.result.rows, job.result.ok, job.result.failed, job.result.finished) == (2, 1, 1, False)
    assert job.result.outputs == [0]


def test_run_with_recorded_errors_keeps_number_and_message() -> None:
    result = flow(odd_fails).to_job().run(range(5), on_error="record")
    assert (result.rows, result.ok, result.failed) == (5, 3, 2)
    assert [(e.row, e.status, e.step) for e in result.errors] == [(1, 500, "s0"), (3, 500, "s0")]
    assert "3 is odd" in result.errors[1].message
    assert (result.outputs, result.output_rows) == ([0, 2, 4], [0, 2, 4])
    frame = result.to_dataframe()
    assert frame["error"].notna().tolist() == [False, True, False, True, False]
    assert frame["output"].dropna().tolist() == [0, 2, 4]


def test_run_with_skipped_errors_only_counts_them() -> None:
    result = flow(odd_fails).to_job().run(range(5), on_error="skip")
    assert (result.ok, result.failed, result.errors, result.outputs) == (3, 2, [], [0, 2, 4])


def test_run_of_only_failures_gives_a_frame_of_errors() -> None:
    frame = flow(odd_fails).to_job().run([1, 3], on_error="record").to_dataframe()
    assert (list(frame.columns), list(frame.index)) == (["error"], [0, 1])


def test_run_with_failing_group_fails_all_of_its_rows() -> None:
    def refuse(rows: list[int]) -> list[int]:
        if 4 in rows:
            raise UnprocessableError("no fours")
        return rows

    result = flow(refuse).to_job().run(range(8), rows_per_request=3, on_error="record")
    assert (result.ok, result.failed) == (5, 3)
    assert [(e.row, e.status) for e in result.errors] == [(3, 422), (4, 422), (5, 422)]
    assert result.outputs == [0, 1, 2, 6, 7]


def test_run_with_error_response_counts_it_as_failure() -> None:
    def teapot(body: int) -> Any:
        return servegraph.Response(status_code=418, body="no") if body == 1 else body

    result = flow(teapot).to_job().run(range(3), on_error="record")
    assert [(e.row, e.status) for e in result.errors] == [(1, 418)]


def test_run_with_rows_that_a_step_drops_counts_them_as_unanswered() -> None:
    from servegraph.graph.events import DROP

    result = flow(lambda n: n if n % 2 else DROP).to_job().run(range(6))
    assert (result.rows, result.ok, result.unanswered, result.outputs) == (6, 6, 3, [1, 3, 5])


def test_run_with_step_that_cancels_itself_is_a_failed_row() -> None:
    async def cancels(body: int) -> int:
        if body == 1:
            raise asyncio.CancelledError
        return body

    result = flow(cancels).to_job().run(range(3), on_error="record")
    assert result.outputs == [0, 2]
    assert [e.row for e in result.errors] == [1]


def test_run_with_source_that_fails_writes_what_came_before_and_raises() -> None:
    def source() -> Iterator[int]:
        yield from range(5)
        raise ConnectionError("the database is gone")

    job = flow(lambda n: n).to_job()
    with pytest.raises(ConnectionError, match="database"):
        job.run(source())
    assert job.result is not None
    assert (job.result.outputs, job.result.finished) == ([0, 1, 2, 3, 4], False)


@pytest.mark.parametrize("option", ["columns", "timestamp_column"])
def test_run_with_unknown_column_names_those_there_are_before_loading(option: str) -> None:
    before = Double.loads
    options: dict[str, Any] = {"columns": ["pricee"]} if option == "columns" else {option: "pricee"}
    with pytest.raises(SettingsError, match=r"no column 'pricee'; did you mean 'price'\? valid: price, size"):
        router().to_job().run(pd.DataFrame({"price": [1], "size": [2]}), **options)
    assert Double.loads == before


def test_run_of_bodies_that_lack_a_column_fails_these_rows() -> None:
    rows = [{"a": 1, "b": 2}, {"a": 1}, {"b": 3, "a": 4}]
    result = router().to_job().run(rows, body="inputs", on_error="record")
    assert result.outputs == [6, 14]
    assert [(e.row, e.status) for e in result.errors] == [(1, 400)]
    assert "no column 'b'" in result.errors[0].message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_in_fligth": 3}, r"no option 'max_in_fligth'; did you mean 'max_in_flight'\?"),
        ({"max_in_flight": 0}, "max_in_flight must be a whole number of at least 1, not 0"),
        ({"rows_per_request": True}, "rows_per_request must be a whole number"),
        ({"on_error": "ignore"}, "on_error is 'ignore'; .*fail, record, skip"),
        ({"body": "rows"}, r"body is 'rows'; did you mean 'row'\?"),
        ({"body": "row", "rows_per_request": 2}, "body='row' sends one row"),
        ({"outputs": "row"}, r"outputs is 'row'; did you mean 'rows'\?"),
        ({"model": "m", "path": "/x"}, "both say where rows go"),
        ({"path": "x"}, "path must begin with '/'"),
        ({"columns": "a"}, "columns must be a list of names"),
        ({"progress": "yes"}, "progress must be True, False, None or a function"),
        ({"read_options": {"sep": ";"}}, "read_options are for CSV files"),
    ],
)
def test_run_with_wrong_option_says_what_is_valid(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        flow(lambda n: n).to_job().run([1], **options)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [({"a": 1}, r"inputs is one body \(dict\)"), (b"x", "one body"), (7, "give a pandas frame, an iterable")],
)
def test_run_of_what_has_no_rows_says_what_is_wanted(inputs: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        flow(lambda n: n).to_job().run(inputs)


@pytest.mark.parametrize("value", ["yesterday", 17_000])
def test_run_with_time_that_is_none_fails_the_row(value: Any) -> None:
    result = flow(lambda r: r).to_job().run([{"t": value}], timestamp_column="t", on_error="record")
    assert f"column 't' holds {value!r}, which is no" in result.errors[0].message


# -- life -------------------------------------------------------------------------------------------------------------


def test_run_loads_models_once_and_closes_them() -> None:
    before = Double.loads, Double.closes
    router().to_job().run([[i] for i in range(50)], body="inputs")
    assert (Double.loads, Double.closes) == (before[0] + 1, before[1] + 1)


def test_run_of_failing_row_closes_models_too() -> None:
    before = Double.loads, Double.closes
    with pytest.raises(RequestFailedError):
        router().to_job().run([["text", 1]], body="inputs")
    assert (Double.loads, Double.closes) == (before[0] + 1, before[1] + 1)


def test_run_with_models_that_load_later_elsewhere_waits_for_them() -> None:
    fn = router()
    fn.spec.load_mode = "async"
    assert fn.to_job().run([[1]], body="inputs").outputs == [2]
    assert fn.spec.load_mode == "async"


def test_run_with_model_that_does_not_load_raises_before_a_row_is_read() -> None:
    class Broken(servegraph.V2ModelServer):
        def load(self) -> None:
            raise OSError("no file")

    fn = servegraph.new_function("broken")
    fn.add_model("m", class_name=Broken)
    rows = iter([[1]])
    with pytest.raises(ModelLoadError, match="no file"):
        fn.to_job().run(rows)
    assert next(rows) == [1]


def test_run_of_function_without_graph_says_so() -> None:
    with pytest.raises(GraphError, match="has no graph"):
        servegraph.new_function("empty").to_job().run([1])


def test_run_inside_a_running_loop_works() -> None:
    async def waits(body: int) -> int:
        await asyncio.sleep(0)
        return body + 1

    async def cell() -> list[Any]:
        return flow(waits).to_job().run(range(10)).outputs

    assert asyncio.run(cell()) == list(range(1, 11))


def test_run_that_is_interrupted_stops_cancels_and_keeps_what_was_done() -> None:
    cancelled: list[int] = []
    hanging = threading.Semaphore(0)

    async def hangs(body: int) -> int:
        if body < 3:
            return body
        try:
            hanging.release()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(body)
            raise
        return body

    def source() -> Iterator[int]:
        yield from range(6)
        for _ in range(3):
            assert hanging.acquire(timeout=10.0)
        raise KeyboardInterrupt  # what Ctrl-C raises in the thread that reads

    job = flow(hangs).to_job()
    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        job.run(source(), max_in_flight=10)
    assert sorted(cancelled) == [3, 4, 5]
    assert job.result is not None
    assert (job.result.outputs, job.result.finished) == ([0, 1, 2], False)
    assert not any(t.name == "servegraph-batch" for t in threading.enumerate())
    assert threading.active_count() <= threads


def test_run_that_gets_a_signal_while_it_waits_stops() -> None:
    async def hangs(body: int) -> int:
        if body == 2:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            await asyncio.Event().wait()
        return body

    job = flow(hangs).to_job()
    with pytest.raises(KeyboardInterrupt):
        job.run(range(10_000), max_in_flight=4)
    assert job.result is not None
    assert (job.result.outputs, job.result.rows, job.result.finished) == ([0, 1], 2, False)


def test_run_when_a_step_would_end_the_program_fails_the_row() -> None:
    def leaves(body: int) -> int:
        if body == 1:
            raise SystemExit(3)
        return body

    result = flow(leaves).to_job().run([0, 1, 2], on_error="record")
    assert (result.outputs, [e.row for e in result.errors]) == ([0, 2], [1])


def test_run_twice_gives_the_same() -> None:
    job = router().to_job()
    first = job.run([[1], [2]], body="inputs").outputs
    assert job.run([[1], [2]], body="inputs").outputs == first


def test_result_tells_its_counts_and_rate() -> None:
    result = flow(lambda n: n).to_job().run(range(100))
    assert result.rows_per_second == pytest.approx(100 / result.seconds)
    assert repr(result).startswith("<BatchResult 100 rows, 0 failed, ")
