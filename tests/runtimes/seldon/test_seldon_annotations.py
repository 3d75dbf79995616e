from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from servegraph.runtimes.seldon.annotations import ANNOTATIONS, PodAnnotations, pod_annotations

SIZE = "seldon.io/grpc-max-message-size"
TIMEOUT = "seldon.io/rest-timeout"


def read(folder: Path, text: str) -> PodAnnotations:
    file = folder / "annotations"
    file.write_text(text, "utf-8")
    return pod_annotations(file)


def test_annotations_are_read_as_kubernetes_writes_them(tmp_path: Path) -> None:
    text = f'kubernetes.io/config.seen="2020-01-01T00:00:00Z"\n{SIZE}="10000000"\n  {TIMEOUT}  =  "2500"  \n'
    found = read(tmp_path, text)
    assert found == PodAnnotations(10_000_000, 2500)
    assert found.settings() == {"grpc.max_message_bytes": 10_000_000, "timeouts.request_s": 2.5}


def test_annotations_of_other_things_change_no_setting(tmp_path: Path) -> None:
    assert read(tmp_path, 'a="b"\n').settings() == {}


def test_value_may_hold_the_sign_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read(tmp_path, f'a="b=c"\n{SIZE}="5"\n') == PodAnnotations(5)
    assert caplog.messages == []


def test_shortest_timeout_is_a_millisecond() -> None:
    assert PodAnnotations(rest_timeout_ms=1).settings() == {"timeouts.request_s": 0.001}


def test_pod_without_annotations_says_nothing(tmp_path: Path) -> None:
    assert str(ANNOTATIONS) == "/etc/podinfo/annotations"
    assert pod_annotations(tmp_path / "nowhere") == pod_annotations(tmp_path) == PodAnnotations()


@pytest.mark.parametrize("line", ["words", "=", 'a="', "a=", '"'])
def test_line_that_is_no_annotation_is_logged_and_the_others_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, line: str
) -> None:
    assert read(tmp_path, f'\n{line}\n{SIZE}="5"\n').max_message_bytes == 5
    assert [message.partition(", ")[2] for message in caplog.messages] == ["line 2 is no annotation"]


@pytest.mark.parametrize("value", ["", "0", "-1", "1.5", "4MiB", "²", "9" * 5000], ids=lambda value: value[:5])
def test_number_that_is_none_is_logged_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    assert read(tmp_path, f'{SIZE}="{value}"\n{TIMEOUT}="100"\n') == PodAnnotations(None, 100)
    assert f"the annotation {SIZE} must be a whole number above 0, not {value!r}: it is left out" in caplog.text


@examples(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60))
def test_whatever_the_file_holds_nothing_is_raised(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "annotations"
    file.write_bytes(content)
    assert isinstance(pod_annotations(file), PodAnnotations)
