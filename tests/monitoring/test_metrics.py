from __future__ import annotations

import subprocess
import sys
import threading
import timeit
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from servegraph.errors import ServegraphError
from servegraph.monitoring.metrics import OVERFLOW_METRIC, MetricsRegistry

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(registry: MetricsRegistry) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(registry.render().decode())}


def samples(registry: MetricsRegistry) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parsed(registry).values()
        for sample in family.samples
    }


@pytest.fixture(params=["memory", "files"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> MetricsRegistry:
    return MetricsRegistry(tmp_path if request.param == "files" else None)


def test_render_of_all_kinds_is_exact_text(registry: MetricsRegistry) -> None:
    registry.counter("b_total", "Second.", {"model": "iris", "code": "200"}).inc(2)
    registry.counter("b_total", "Second.", {"model": "iris", "code": "100"}).inc(0.5)
    registry.gauge("c", "Third.").set(-3)
    registry.gauge("d", "Fourth.", summed=True).inc(4)
    histogram = registry.histogram("a_seconds", "First.", {"model": "iris"}, buckets=(0.1, 1))
    for seconds in (0.05, 0.1, 0.5, 7):
        histogram.observe(seconds)
    assert registry.render().decode() == (
        "# HELP a_seconds First.\n"
        "# TYPE a_seconds histogram\n"
        'a_seconds_bucket{model="iris",le="0.1"} 2\n'
        'a_seconds_bucket{model="iris",le="1"} 3\n'
        'a_seconds_bucket{model="iris",le="+Inf"} 4\n'
        'a_seconds_sum{model="iris"} 7.65\n'
        'a_seconds_count{model="iris"} 4\n'
        "# HELP b_total Second.\n"
        "# TYPE b_total counter\n"
        'b_total{code="100",model="iris"} 0.5\n'
        'b_total{code="200",model="iris"} 2\n'
        "# HELP c Third.\n"
        "# TYPE c gauge\n"
        'c{worker="0"} -3\n'
        "# HELP d Fourth.\n"
        "# TYPE d gauge\n"
        "d 4\n"
    )
    assert set(parsed(registry)) == {"a_seconds", "b", "c", "d"}


def test_render_without_metrics_is_empty(registry: MetricsRegistry) -> None:
    assert registry.render() == b""


def test_children_asked_for_twice_are_the_same(registry: MetricsRegistry) -> None:
    registry.counter("a_total", "A.", {"x": "1", "y": "2"}).inc()
    registry.counter("a_total", "A.", {"y": "2", "x": "1"}).inc()
    child = registry.counter("a_total", "A.", {"x": "1", "y": "2"})
    assert child.value == 2
    gauge = registry.gauge("g", "G.")
    gauge.inc(3)
    gauge.dec()
    assert gauge.value == 2
    histogram = registry.histogram("h", "H.", buckets=[1])
    histogram.observe(3)
    assert (histogram.count, histogram.sum) == (1, 3)


@given(st.text(), st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.text(), max_size=3))
def test_render_of_any_text_is_read_back_by_prometheus(help_text: str, labels: dict[str, str]) -> None:
    # The parser cuts lines at every line end of Unicode and strips the help; the format knows \n alone.
    odd = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
    table = str.maketrans(dict.fromkeys(odd, " "))
    labels = {name: value.translate(table) for name, value in labels.items()}
    registry = MetricsRegistry(None)
    registry.counter("x_total", help_text.translate(table), labels).inc(3)
    (family,) = text_string_to_metric_families(registry.render().decode())
    assert [(dict(s.labels), s.value) for s in family.samples] == [(labels, 3.0)]


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a b", "ä"])
def test_metric_with_bad_name_is_refused(registry: MetricsRegistry, name: str) -> None:
    with pytest.raises(ValueError, match="is not a metric name"):
        registry.counter(name, "A.")


def test_metric_with_bad_or_taken_label_is_refused(registry: MetricsRegistry) -> None:
    for label in ("", "1", "a-b", "__name"):
        with pytest.raises(ValueError, match="is not a label name"):
            registry.counter("a_total", "A.", {label: "x"})
    with pytest.raises(ValueError, match=r"label 'le' .* is taken"):
        registry.histogram("a", "A.", {"le": "x"})
    with pytest.raises(ValueError, match=r"label 'worker' .* is taken"):
        registry.gauge("a", "A.", {"worker": "x"})


@pytest.mark.parametrize("buckets", [(), (1, 1), (2, 1), (1, float("inf")), (float("nan"), 1)])
def test_histogram_with_bad_buckets_is_refused(registry: MetricsRegistry, buckets: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must rise and be finite"):
        registry.histogram("a", "A.", buckets=buckets)


def test_metric_declared_twice_differently_is_refused(registry: MetricsRegistry) -> None:
    registry.counter("a_total", "A.", {"x": "1"})
    for declare in (
        lambda: registry.gauge("a_total", "A.", {"x": "1"}),
        lambda: registry.counter("a_total", "B.", {"x": "1"}),
        lambda: registry.counter("a_total", "A.", {"y": "1"}),
    ):
        with pytest.raises(ValueError, match="declared twice"):
            declare()


def test_counter_with_negative_increment_is_refused(registry: MetricsRegistry) -> None:
    with pytest.raises(ValueError, match="only grows"):
        registry.counter("a_total", "A.").inc(-1)


def test_label_sets_beyond_the_limit_share_one_child_and_are_counted(tmp_path: Path) -> None:
    registry = MetricsRegistry(tmp_path, max_label_sets=3)
    for i in range(10):
        registry.counter("a_total", "A.", {"x": str(i), "y": "z"}).inc()
    registry.counter("a_total", "A.", {"x": "1", "y": "z"}).inc()
    got = samples(registry)
    assert got["a_total", (("x", "overflow"), ("y", "overflow"))] == 7
    assert got["a_total", (("x", "1"), ("y", "z"))] == 2
    assert got[OVERFLOW_METRIC, (("metric", "a_total"),)] == 7
    assert len([name for name, _ in got if name == "a_total"]) == 4


def test_label_values_are_cut_at_their_limit(registry: MetricsRegistry) -> None:
    registry.counter("a_total", "A.", {"x": "y" * 100_000}).inc()
    assert len(registry.render()) < 500


def test_many_children_spread_over_several_pieces(registry: MetricsRegistry) -> None:
    children = [registry.histogram("h", "H.", {"x": str(i)}) for i in range(600)]
    for i, child in enumerate(children):
        child.observe(i)
    got = samples(registry)
    assert [got["h_sum", (("x", str(i)),)] for i in range(600)] == list(range(600))


def test_increments_of_several_threads_are_all_counted(registry: MetricsRegistry) -> None:
    counter = registry.counter("a_total", "A.")
    histogram = registry.histogram("h", "H.")
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work() -> None:
        for _ in range(20_000):
            counter.inc()
            histogram.observe(0.5)

    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert (counter.value, histogram.count, histogram.sum) == (80_000, 80_000, 40_000)


class Writer:
    def __init__(self, directory: Path, slot: int, rounds: int) -> None:
        script = Path(__file__).with_name("metrics_writer.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(directory), str(slot), str(rounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def wait(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"done\n"

    def end(self, *, kill: bool = False) -> None:
        if kill:
            self.process.kill()
        self.process.communicate(b"\n")


def test_metrics_of_several_processes_are_merged_and_outlive_a_kill(tmp_path: Path) -> None:
    watcher = MetricsRegistry(tmp_path, 9)
    writers = [Writer(tmp_path, slot, 2000) for slot in range(3)]
    seen = 0.0
    while any(writer.process.poll() is None for writer in writers) and seen < 6000:
        now = samples(watcher).get(("done_total", (("model", "iris"),)), 0.0)
        assert now >= seen  # also while the others write
        seen = now
    for writer in writers:
        writer.wait()
    writers[0].end(kill=True)
    again = Writer(tmp_path, 0, 500)
    again.wait()
    got = samples(watcher)
    assert got["done_total", (("model", "iris"),)] == 6500
    assert got["seconds_count", ()] == 6500
    assert got["seconds_sum", ()] == 3250
    assert sum(value for (name, _), value in got.items() if name == "made_total") == 6500
    assert {key: value for key, value in got.items() if key[0] == "busy"} == {
        ("busy", (("worker", str(slot)),)): 1.0 for slot in range(3)
    }
    for writer in (writers[1], writers[2], again):
        writer.end()


def test_metrics_of_a_worker_killed_at_any_moment_stay_readable(tmp_path: Path) -> None:
    watcher = MetricsRegistry(tmp_path, 9)
    writer = Writer(tmp_path, 0, 10**9)
    while samples(watcher).get(("seconds_count", ()), 0.0) < 100:
        assert writer.process.poll() is None
    writer.end(kill=True)
    before = samples(watcher)["done_total", (("model", "iris"),)]
    successor = MetricsRegistry(tmp_path, 0)
    successor.counter("done_total", "Done.", {"model": "iris"}).inc()
    assert samples(watcher)["done_total", (("model", "iris"),)] == before + 1
    assert samples(watcher)["busy", (("worker", "0"),)] == 0


def test_torn_last_line_of_a_key_table_is_cut_off(tmp_path: Path) -> None:
    writer = Writer(tmp_path, 0, 1)
    writer.wait()
    writer.end()
    with (tmp_path / "0.keys").open("ab") as file:
        file.write(b'{"first": 12, "val')
    successor = MetricsRegistry(tmp_path, 0)
    successor.counter("new_total", "New.").inc()
    assert samples(successor)["new_total", ()] == 1
    assert samples(successor)["seconds_count", ()] == 1


def test_key_table_that_is_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "0.keys").write_bytes(b"hello\n")
    with pytest.raises(ServegraphError, match=r"0\.keys is not a table of metrics: b'hello'"):
        MetricsRegistry(tmp_path, 0)


def test_slot_of_a_living_process_is_refused(tmp_path: Path) -> None:
    writer = Writer(tmp_path, 0, 1)
    writer.wait()
    with pytest.raises(ServegraphError, match=r"slot 0 .* belongs to another process"):
        MetricsRegistry(tmp_path, 0)
    writer.end()


def test_older_declaration_of_another_slot_does_not_mix_with_own(tmp_path: Path) -> None:
    old = MetricsRegistry(tmp_path, 0)
    old.histogram("h", "H.", buckets=(1, 2)).observe(1)
    new = MetricsRegistry(tmp_path, 1)
    new.histogram("h", "H.", buckets=(5,)).observe(1)
    assert samples(new)["h_count", ()] == 1
    assert ("h_bucket", (("le", "2"),)) not in samples(new)


def test_counter_and_histogram_together_take_about_half_a_microsecond(tmp_path: Path) -> None:
    registry = MetricsRegistry(tmp_path)
    counter = registry.counter("a_total", "A.", {"model": "iris"})
    histogram = registry.histogram("h", "H.", {"model": "iris"})

    def observe() -> None:
        counter.inc()
        histogram.observe(0.003)

    times = timeit.repeat(observe, number=20_000, repeat=5)
    assert min(times) / 20_000 < 2e-6  # four times the target: the machine may be busy
