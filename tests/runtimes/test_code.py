from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph import jsoncodec
from servegraph.errors import SettingsError, SpecError
from servegraph.runtimes.code import Code, read_code
from servegraph.runtimes.code_lines import scan
from servegraph.runtimes.function import code_to_function


def notebook(folder: Path, *cells: str | tuple[str, list[str]], name: str = "nb.ipynb") -> str:
    made: list[dict[str, Any]] = [{"cell_type": "markdown", "metadata": {}, "source": "# Title"}]
    for cell in cells:
        source, tags = cell if isinstance(cell, tuple) else (cell, [])
        made.append(
            {
                "cell_type": "code",
                "metadata": {"tags": tags} if tags else {},
                "source": source.splitlines(keepends=True),
                "outputs": [],
                "execution_count": None,
            }
        )
    path = folder / name
    path.write_bytes(jsoncodec.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": made}))
    return str(path)


def python(folder: Path, text: str, name: str = "code.py") -> str:
    path = folder / name
    path.write_text(text, "utf-8")
    return str(path)


def test_notebook_code_is_that_of_its_cells(tmp_path: Path) -> None:
    path = notebook(tmp_path, "a = 1\n", "b = 2")
    assert read_code(path) == Code("nb", "a = 1\n\nb = 2\n", path)
    assert read_code(path, "given").name == "given"


@pytest.mark.parametrize("prefix", ["nuclio", "mlrun", "servegraph"])
def test_notebook_cells_marked_ignore_are_left_out(prefix: str, tmp_path: Path) -> None:
    path = notebook(
        tmp_path,
        "a = 1",
        f"x = 1  # {prefix}: ignore",
        f"#{prefix}:ignore\nx = 1",
        ("x = 1", [f"{prefix}-ignore"]),
        f"!pip install x  # {prefix}: ignore\nx = 1",
        f"%%bash\n# {prefix}: ignore\nls",
        f's = """\n# {prefix}: ignore\n"""',
    )
    assert read_code(path).source == f'a = 1\n\ns = """\n# {prefix}: ignore\n"""\n'


def test_notebook_sections_are_what_stands_between_the_marks(tmp_path: Path) -> None:
    path = notebook(
        tmp_path,
        "before = 1",
        "before = 2\n# nuclio: start-code\na = 1",
        "b = 2\n# nuclio: end-code\nafter = 1",
        "between = 1",
        "# servegraph: start-code my_fn\nc = 3\n# servegraph: end-code my_fn",
        "# mlrun: start-code other\nd = 4\n# mlrun: end-code",
    )
    assert read_code(path).source == "a = 1\n\nb = 2\n"
    assert read_code(path, "my-fn").source == "a = 1\n\nb = 2\n\nc = 3\n"


def test_notebook_with_an_end_alone_keeps_what_is_before_it(tmp_path: Path) -> None:
    assert read_code(notebook(tmp_path, "a = 1", "# nuclio: end-code", "b = 1")).source == "a = 1\n"


def test_notebook_with_a_start_alone_keeps_what_is_behind_it(tmp_path: Path) -> None:
    assert read_code(notebook(tmp_path, "a = 1", "# nuclio: start-code", "b = 1")).source == "b = 1\n"


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            ["# nuclio: start-code", "\n# nuclio: start-code"],
            r"nb\.ipynb, code cell 2, line 2: start-code, but the one",
        ),
        (["# nuclio: start-code\n# nuclio: end-code\n# nuclio: end-code"], "code cell 1, line 3: end-code without"),
        (["# nuclio: start-code a\n# nuclio: end-code b"], "line 2: end-code b without its start-code"),
        (["# nuclio: start-code abc\nx = 1\n# nuclio: end-code"], "no section for 'nb'; valid: abc"),
        (["a = 1", "b = 2\nfiles = !ls"], r"code cell 2, line 2: this is no Python.*'files = !ls'.*servegraph: ignore"),
        (["await x"], "code cell 1, line 1: .*await.* outside"),
        (["%nuclio confg spec.x = 1"], "did you mean 'config'"),
        (["%nuclio config spec.x = {"], "code cell 1, line 1: the value of spec.x is no JSON"),
        (["%nuclio config spec"], "write '%nuclio config"),
        (["%nuclio env X"], "NAME=value"),
        (["%nuclio mount /a /b"], "not supported: give volumes"),
        (["%nuclio config a = 1\n%nuclio config a.b = 1"], "line 2: a.b: 'a' has a value"),
        (["%nuclio config a = 1\n%nuclio config a += 1"], "line 2: a: .* not to int"),
    ],
)
def test_notebook_that_is_wrong_names_cell_and_line(cells: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message):
        read_code(notebook(tmp_path, *cells))


def test_notebook_magics_are_dropped_wherever_they_stand(tmp_path: Path) -> None:
    path = notebook(
        tmp_path,
        "%matplotlib inline\n!pip install \\\n  it's\na = (1\n% 2)\n"
        "for i in a:\n    !echo {i}\n    %time f()\nprint?\n",
        "%%time\nb = 2",
        "%%bash\necho 'x",
        'def f():\n    """Use it with\n%nuclio cmd x\n!ls\n    """\n    return "%nuclio" % ()\n',
        "c = '''a''' + \"it's\" \\\n  % 3\n!ls\n",
    )
    code = read_code(path)
    assert code.commands == []
    assert code.source == (
        "a = (1\n% 2)\nfor i in a:\n    pass\n    pass\n\n"
        "b = 2\n\n"
        'def f():\n    """Use it with\n%nuclio cmd x\n!ls\n    """\n    return "%nuclio" % ()\n\n'
        "c = '''a''' + \"it's\" \\\n  % 3\n"
    )


def test_notebook_magics_of_nuclio_say_how_to_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHEEL_HOST", "wheels")
    path = notebook(
        tmp_path,
        "%nuclio cmd -c pip install a \\\n    b\n%nuclio cmd -l ls\n%nuclio cmd pip install ${WHEEL_HOST}/${NOT_SET_X}",
        "%%nuclio cmd\napt-get update\n# comment\napt-get install x",
        "%nuclio env A=1\n%nuclio env -c B='two words'",
        "%%nuclio env -c\nC=x=y\n",
        '%nuclio config spec.maxReplicas = 5\n%nuclio config spec.build.baseImage = "python:3.11-slim"',
        '%nuclio config spec.volumes += {"name": "v"}\n%nuclio config spec.volumes += [1]',
        "%nuclio deploy -n x",
        "a = 1",
    )
    code = read_code(path)
    assert code.source == "a = 1\n"
    assert code.commands == [
        "pip install a b",
        "pip install wheels/${NOT_SET_X}",
        "apt-get update",
        "apt-get install x",
    ]
    assert code.env == {"A": "1", "B": "two words", "C": "x=y"}
    assert code.config == {
        "spec": {"maxReplicas": 5, "build": {"baseImage": "python:3.11-slim"}, "volumes": [{"name": "v"}, 1]}
    }
    function = code_to_function("f", filename=path)
    assert (function.spec.env, function.spec.commands) == (code.env, code.commands)
    assert function.spec.config == code.config


def test_notebook_magics_outside_of_the_code_say_nothing(tmp_path: Path) -> None:
    path = notebook(
        tmp_path, "%nuclio env A=1", "# nuclio: start-code\n%nuclio env B=1", ("%nuclio env C=1", ["mlrun-ignore"])
    )
    assert read_code(path).env == {"B": "1"}


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"{", "no notebook"), (b"[]", "version 4"), (b'{"worksheets": []}', "version 4"), (b"\xff", "UTF-8")],
)
def test_notebook_that_is_none_says_so(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "nb.ipynb"
    path.write_bytes(data)
    with pytest.raises(SpecError, match=message):
        read_code(str(path))


def test_code_to_function_without_a_file_says_what_to_pass() -> None:
    with pytest.raises(SettingsError, match=r'filename="x\.ipynb"'):
        eval("code_to_function()", {"code_to_function": code_to_function})


@pytest.mark.parametrize(("name", "message"), [("x.txt", "neither"), ("cod.py", "did you mean 'code.py'")])
def test_code_of_a_wrong_file_says_so(name: str, message: str, tmp_path: Path) -> None:
    python(tmp_path, "")
    with pytest.raises(SettingsError, match=message):
        read_code(str(tmp_path / name))


def test_file_code_is_its_text(tmp_path: Path) -> None:
    path = python(tmp_path, "a = 1\r\nb = 2\n")
    assert read_code(path) == Code("code", "a = 1\nb = 2\n", path)


def test_file_marks_leave_out_statements(tmp_path: Path) -> None:
    path = python(
        tmp_path,
        """\
import os  # servegraph: ignore
a = 1

# servegraph: ignore
@property
def f():
    return 1

class C:
    # nuclio: ignore
    x = 1

if a:
    b = (1,
         2)  # mlrun: ignore
TEXT = "# nuclio: ignore"
""",
    )
    source = read_code(path).source
    assert ast.unparse(ast.parse(source)) == ("a = 1\n\nclass C:\n    pass\nif a:\n    pass\nTEXT = '# nuclio: ignore'")
    assert source.count("\n") == Path(path).read_text("utf-8").count("\n")


def test_file_marks_leave_out_cells(tmp_path: Path) -> None:
    path = python(tmp_path, "# %% one\na = 1\n# %% two\nb = 1\n# servegraph: ignore\nc = 1\n# %%\nd = 1\n")
    assert ast.unparse(ast.parse(read_code(path).source)) == "a = 1\nd = 1"


def test_file_sections_keep_line_numbers(tmp_path: Path) -> None:
    path = python(tmp_path, "a = 1\n# nuclio: start-code\nb = 2\n# nuclio: end-code\nc = 3\n")
    assert read_code(path).source == "\n\nb = 2\n\n\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\nb = (\n", r"code\.py, line 2"),
        ("a = 1\n# nuclio: ignore\n", "line 2: there is no statement"),
        ("a\0", "null"),
    ],
)
def test_file_that_is_wrong_names_the_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message):
        read_code(python(tmp_path, text))


_PIECES = st.sampled_from(
    ["'", '"', "'''", '"""', "#", "\\", "(", ")", "\n", "%", "!ls", "a", " ", "x = 1", "%nuclio cmd x", "?"]
)


@given(st.lists(_PIECES, max_size=30).map("".join))
def test_scan_keeps_every_line_of_any_text(text: str) -> None:
    assert "\n".join(line.text for line in scan(text, 1)) == text


@given(st.lists(_PIECES, max_size=20).map("".join))
def test_scan_finds_no_magic_in_what_is_python(text: str) -> None:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return
    assert not any(line.magic for line in scan(text, 1))
