from __future__ import annotations

from servegraph.runtimes.restarts import CrashLoop, Restarts


def test_restarts_of_a_dying_worker_are_delayed_up_to_thirty_seconds() -> None:
    restarts = Restarts()
    assert [restarts.next_delay(0.1) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_restarts_after_a_healthy_time_begin_anew() -> None:
    restarts = Restarts()
    assert [restarts.next_delay(healthy) for healthy in (0.0, 0.0, 5.0, 0.0)] == [0.5, 1, 0.5, 1]


def test_crash_loop_with_more_than_five_in_a_minute_is_noticed() -> None:
    crashes = CrashLoop()
    assert [crashes.add(float(t)) for t in (0, 10, 20, 30, 40, 50)] == [False] * 5 + [True]
    assert crashes.add(61.0)
    assert not crashes.add(200.0)
