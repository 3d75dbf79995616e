from __future__ import annotations

from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from servegraph.graph.clock import timestamp


@given(st.integers(0, 4_000_000_000), st.integers(0, 999_999_999))
def test_timestamp_of_any_time_keeps_its_microseconds(seconds: int, nanoseconds: int) -> None:
    when_ns = seconds * 1_000_000_000 + nanoseconds
    text = timestamp(when_ns)
    moment = datetime.fromisoformat(text)
    assert int(moment.replace(microsecond=0).timestamp()) == seconds
    assert moment.microsecond == nanoseconds // 1000
    assert text.endswith("+00:00")
    assert len(text) == 32
    assert timestamp(when_ns) == text
