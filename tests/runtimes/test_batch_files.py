"""Batches from files and to files and streams."""

from __future__ import annotations

import csv
import gzip
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import servegraph
from servegraph import jsoncodec
from servegraph.errors import RequestError, RequestFailedError, SettingsError, StreamError
from servegraph.runtimes import batch_sources
from servegraph.streams import MemoryStream, OutputStream, PushError, Record


def job(handler: Any) -> Any:
    fn = servegraph.new_function("files", project="p")
    fn.set_topology("flow").to(handler=handler, name="step").respond()
    return fn.to_job()


def same(row: Any) -> Any:
    return row


def odd_fails(row: Any) -> Any:
    if row["n"] % 2:
        raise ValueError("odd")
    return {"twice": 2 * row["n"]}


def lines(path: Path) -> list[Any]:
    return [jsoncodec.loads(line) for line in path.read_bytes().splitlines()]


# -- inputs -----------------------------------------------------------------------------------------------------------


def test_csv_larger_than_a_chunk_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_sources, "CHUNK_ROWS", 100)
    path = tmp_path / "rows.csv"
    pd.DataFrame({"n": range(1050), "name": [f"row {i}" for i in range(1050)]}).to_csv(path, index=False)
    sizes: list[int] = []
    frame_chunk = batch_sources._frame_chunk

    def measured(frame: Any) -> Any:
        sizes.append(len(frame))
        return frame_chunk(frame)

    monkeypatch.setattr(batch_sources, "_frame_chunk", measured)
    result = job(same).run(path, rows_per_request=7)  # groups go over the ends of chunks
    assert [o["n"] for o in result.outputs] == list(range(1050))
    assert result.outputs[1049] == {"n": 1049, "name": "row 1049"}
    assert sizes == [100] * 10 + [50]


@pytest.mark.parametrize(
    "name", ["rows.jsonl", "rows.ndjson", "rows.jsonl.gz", "rows.json", "rows.parquet", "rows.csv.gz"]
)
def test_file_of_each_format_gives_its_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    rows = [{"n": i, "text": "ä" * i} for i in range(1, 6)]
    if name.endswith(".parquet"):
        pd.DataFrame(rows).to_parquet(path)
    elif "csv" in name:
        pd.DataFrame(rows).to_csv(path, index=False)
    elif name.endswith(".json"):
        path.write_bytes(jsoncodec.dumps(rows))
    else:
        text = b"\n\n".join(jsoncodec.dumps(r) for r in rows)
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    assert job(same).run(str(path)).outputs == rows


def test_pattern_and_list_of_files_are_read_in_order(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"part-{number}.jsonl").write_text(f'{{"n": {number}}}\n')
    assert job(same).run(f"{tmp_path}/part-*.jsonl").outputs == [{"n": 0}, {"n": 1}, {"n": 2}]
    backwards = [str(tmp_path / "part-2.jsonl"), str(tmp_path / "part-0.jsonl")]
    assert job(same).run(backwards).outputs == [{"n": 2}, {"n": 0}]


def test_columns_of_files_for_a_model_are_those_of_the_first(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("a,b\n1,2\n")
    (tmp_path / "2.csv").write_text("b,a\n20,10\n")
    (tmp_path / "3.csv").write_text("b,c\n20,10\n")
    files = [tmp_path / "1.csv", tmp_path / "2.csv"]
    assert job(lambda body: body["inputs"]).run(files, body="inputs", outputs="answers").outputs == [
        [[1, 2]],
        [[10, 20]],
    ]
    with pytest.raises(SettingsError, match=r"no column 'a'; .*valid: b, c"):
        job(lambda body: body["inputs"]).run([*files, tmp_path / "3.csv"], body="inputs")


def test_csv_with_read_options_is_read_with_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("zip;n\n01234;1\n")
    result = job(same).run(path, read_options={"sep": ";", "dtype": {"zip": str}})
    assert result.outputs == [{"zip": "01234", "n": 1}]
    with pytest.raises(SettingsError, match=r"cannot be read with these read_options: .*'separator'"):
        job(same).run(path, read_options={"separator": ";"})


def test_list_of_texts_is_a_list_of_bodies() -> None:
    assert job(str.upper).run(["some text", "more text"]).outputs == ["SOME TEXT", "MORE TEXT"]


def test_json_line_that_cannot_be_read_is_a_failed_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 0}\n{"n": \n{"n": 2}\n')
    result = job(same).run(path, on_error="record", rows_per_request=2)
    assert result.outputs == [{"n": 0}, {"n": 2}]
    assert result.output_rows == [0, 2]
    assert [(e.row, e.status) for e in result.errors] == [(1, 400)]
    assert "rows.jsonl, line 2 is not JSON" in result.errors[0].message


def test_line_that_is_a_whole_request_is_not_taken_for_a_row(tmp_path: Path) -> None:
    class Sum(servegraph.V2ModelServer):
        def load(self) -> None:
            pass

        def predict(self, request: Any) -> Any:
            return [sum(row) for row in request["inputs"]]

    fn = servegraph.new_function("sums")
    fn.add_model("sum", class_name=Sum)
    path = tmp_path / "requests.jsonl"
    path.write_text('{"inputs": [[1, 2]]}\n')
    with pytest.raises(RequestFailedError, match="looks like a whole request: body='row'"):
        fn.to_job().run(path)
    assert fn.to_job().run(path, body="row").outputs[0]["outputs"] == [3]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.csv", "there is no file"),
        ("*.parquet", "no file matches"),
        ("", "is a folder; name the files in it"),
        ("rows.xlsx", r"has no format that is read; .*\.csv, \.json, \.jsonl, \.ndjson, \.parquet"),
    ],
)
def test_file_that_cannot_be_read_is_told_before_anything_runs(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "rows.xlsx").touch()
    with pytest.raises(SettingsError, match=message):
        job(same).run(f"{tmp_path}/{name}")


def test_csv_that_is_none_and_json_that_is_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n1,2,3,4\n")
    with pytest.raises(RequestError, match=r"bad\.csv is not the CSV it should be"):
        job(same).run(tmp_path / "bad.csv")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(RequestError, match=r"bad\.json is not JSON"):
        job(same).run(tmp_path / "bad.json")


@pytest.mark.parametrize("name", ["empty.csv", "empty.jsonl"])
def test_empty_file_has_no_rows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert job(same).run(tmp_path / name).rows == 0


def test_frame_with_two_columns_of_one_name_is_refused() -> None:
    with pytest.raises(SettingsError, match="several columns named 'a'"):
        job(same).run(pd.DataFrame([[1, 2]], columns=["a", "a"]))


# -- outputs ----------------------------------------------------------------------------------------------------------


def test_json_lines_in_and_out_keep_order_and_row_numbers(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "new" / "out.jsonl"
    source.write_bytes(b"".join(jsoncodec.dumps({"n": i}) + b"\n" for i in range(100)))
    result = job(lambda row: {"m": np.float32(row["n"] / 2)}).run(source, output=target)
    assert lines(target) == [{"row": i, "output": {"m": i / 2}} for i in range(100)]
    assert (result.output, result.ok) == (str(target), 100)
    with pytest.raises(SettingsError, match=r"the outputs are in .*out\.jsonl"):
        _ = result.outputs


@pytest.mark.parametrize(("on_error", "rows"), [("record", [0, 1, 2, 3]), ("skip", [0, 2])])
def test_failed_rows_are_in_the_file_where_they_are_recorded(tmp_path: Path, on_error: str, rows: list[int]) -> None:
    frame = pd.DataFrame({"n": range(4)})
    job(odd_fails).run(frame, output=tmp_path / "out.jsonl", on_error=on_error)
    found = lines(tmp_path / "out.jsonl")
    assert [r["row"] for r in found] == rows
    assert [r["status"] for r in found if "error" in r] == [500] * (len(rows) - 2)
    for name in ("out.csv", "out.parquet"):
        job(odd_fails).run(frame, output=tmp_path / name, on_error=on_error)
    for table in (pd.read_csv(tmp_path / "out.csv"), pd.read_parquet(tmp_path / "out.parquet")):
        assert table["row"].tolist() == rows
        assert table["twice"].dropna().tolist() == [0, 4]
        assert ("error" in table.columns) == (on_error == "record")


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.parquet"])
def test_output_of_no_rows_is_a_file_without_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    job(same).run([], output=path)
    if name.endswith(".jsonl"):
        assert path.read_bytes() == b""
    else:
        table = pd.read_csv(path) if name.endswith(".csv") else pd.read_parquet(path)
        assert (list(table.columns), len(table)) == (["row"], 0)


def test_csv_output_writes_nested_values_as_json_and_missing_ones_empty(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    job(same).run([{"a": [1, 2], "b": "x,y"}, {"b": None, "c": float("nan")}, 5], output=path)
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["row", "a", "b", "c", "output"],
            ["0", "[1,2]", "x,y", "", ""],
            ["1", "", "", "", ""],
            ["2", "", "", "", "5"],
        ]


def test_table_output_larger_than_its_first_rows_is_written_in_pieces(tmp_path: Path) -> None:
    for name in ("out.csv", "out.parquet"):
        job(lambda n: {"n": n, "list": [n]}).run(range(2500), output=tmp_path / name)
    assert pd.read_csv(tmp_path / "out.csv")["n"].tolist() == list(range(2500))
    table = pd.read_parquet(tmp_path / "out.parquet")
    assert table["n"].tolist() == list(range(2500))
    assert table["list"][2499].tolist() == [2499]


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_table_output_with_a_late_column_says_what_to_do(tmp_path: Path, name: str) -> None:
    late = itertools.chain(({"a": i} for i in range(1500)), [{"b": 1}])
    with pytest.raises(StreamError, match=r"row 1500 has the column 'b'.*\.jsonl"):
        job(same).run(late, output=tmp_path / name)
    read = pd.read_csv if name.endswith(".csv") else pd.read_parquet
    assert len(read(tmp_path / name)) >= 1000


def test_parquet_output_of_mixed_types_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match=r"column 'output' holds values of several types .*\.jsonl"):
        job(same).run([1, "a"], output=tmp_path / "out.parquet")


def test_output_that_cannot_be_written_is_a_failed_row(tmp_path: Path) -> None:
    result = job(lambda n: object() if n == 1 else n).run(range(3), output=tmp_path / "o.jsonl", on_error="record")
    assert [(e.row, e.status) for e in result.errors] == [(1, 500)]
    assert "object cannot be written as JSON" in result.errors[0].message
    assert [r["row"] for r in lines(tmp_path / "o.jsonl")] == [0, 1, 2]
    clash = job(same).run([{"row": 7}], output=tmp_path / "o.csv", on_error="record")
    assert "'row' is a column of the file's own" in clash.errors[0].message


def test_output_of_a_run_that_fails_holds_what_was_done(tmp_path: Path) -> None:
    with pytest.raises(RequestFailedError, match="row 1 failed"):
        job(odd_fails).run(pd.DataFrame({"n": range(4)}), output=tmp_path / "out.parquet")
    assert pd.read_parquet(tmp_path / "out.parquet")["twice"].tolist() == [0]


@pytest.mark.parametrize(
    ("output", "message"),
    [("out.txt", r"no format that is written; .*\.csv.*or a stream's URI"), (".", "no format|is a folder")],
)
def test_output_of_unknown_form_names_the_formats(output: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        job(same).run([1], output=output)


def test_output_that_is_an_input_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 1}\n')
    with pytest.raises(SettingsError, match="is one of the inputs"):
        job(same).run(path, output=str(tmp_path / "." / "rows.jsonl"))
    assert path.read_text() == '{"n": 1}\n'


def test_output_to_a_stream_pushes_records_in_order() -> None:
    stream = MemoryStream("dummy://batch-outputs")
    result = job(odd_fails).run([{"n": n} for n in range(3)], output="dummy://batch-outputs", on_error="record")
    assert [(r["row"], r.get("output")) for r in stream.event_list] == [(0, {"twice": 0}), (1, None), (2, {"twice": 4})]  # type: ignore[index, attr-defined]
    assert result.output == "dummy://batch-outputs"


class Refusing(OutputStream):
    """Takes all but the last of each push, ``failures`` times."""

    def __init__(self, failures: int) -> None:
        super().__init__("refusing://x")
        self.failures = failures
        self.taken: list[Any] = []

    def _write(self, batch: Any) -> None:
        records: list[Record] = [record for record, _ in batch]
        if self.failures:
            self.failures -= 1
            self.taken += records[:-1]
            raise PushError("away", undelivered=records[-1:])
        self.taken += records


def test_output_stream_that_is_away_for_a_moment_gets_everything_once() -> None:
    stream = Refusing(failures=1)
    job(same).run(range(5), output=stream)
    assert [r.data["output"] for r in stream.taken] == [0, 1, 2, 3, 4]
    stream.push([Record(1)])  # a stream that was handed over stays open


def test_outputs_are_written_while_the_source_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from servegraph.runtimes import batch

    monkeypatch.setattr(batch, "_FLUSH_EVERY_S", 0.0)
    path = tmp_path / "out.jsonl"
    seen: list[int] = []

    def source() -> Iterator[int]:
        for number in range(50):
            seen.append(len(path.read_bytes().splitlines()))
            yield number

    job(same).run(source(), output=path, max_in_flight=4)
    assert seen[-1] >= 50 - 1 - 4
