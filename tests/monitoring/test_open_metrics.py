from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from servegraph.monitoring.metrics import OVERFLOW_METRIC
from servegraph.monitoring.open_metrics import OpenMetrics

_WRITE = """
import sys
from pathlib import Path
from servegraph.monitoring.open_metrics import OpenMetrics
metrics = OpenMetrics(Path(sys.argv[1]), int(sys.argv[2]))
metrics.counter("rows_total", "Rows.", {"stage": sys.argv[2]}).inc(2)
metrics.counter("rows_total", "Rows.", {}).inc(3)
metrics.gauge("load", "Load.", {}).set(float(sys.argv[2]))
"""


def samples(metrics: OpenMetrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


@pytest.fixture(params=["memory", "files"])
def metrics(request: pytest.FixtureRequest, tmp_path: Path) -> OpenMetrics:
    return OpenMetrics(tmp_path if request.param == "files" else None)


def test_children_with_other_labels_are_one_metric_with_one_head(metrics: OpenMetrics) -> None:
    metrics.counter("rows_total", "Rows.", {"b": "1", "a": "2"}).inc()
    metrics.counter("rows_total", "Rows.", {"a": "2", "b": "1"}).inc()
    metrics.counter("rows_total", "Rows.", {}).inc(0.5)
    metrics.gauge("load", "Load.", {"worker": "x"}).set(-2)
    timer = metrics.histogram("took", "Took.", {"stage": "a"}, (0, 1))
    timer.observe(0.5)
    assert metrics.render().decode() == (
        "# HELP load Load.\n"
        "# TYPE load gauge\n"
        'load{worker="x"} -2\n'
        "# HELP rows_total Rows.\n"
        "# TYPE rows_total counter\n"
        "rows_total 0.5\n"
        'rows_total{a="2",b="1"} 2\n'
        "# HELP took Took.\n"
        "# TYPE took histogram\n"
        'took_bucket{stage="a",le="0"} 0\n'
        'took_bucket{stage="a",le="1"} 1\n'
        'took_bucket{stage="a",le="+Inf"} 1\n'
        'took_sum{stage="a"} 0.5\n'
        'took_count{stage="a"} 1\n'
    )


def test_render_without_metrics_and_with_a_gauge_never_set_is_empty(metrics: OpenMetrics) -> None:
    assert metrics.render() == b""
    metrics.gauge("load", "Load.", {})
    assert metrics.render() == b""


def test_metrics_of_one_name_and_several_kinds_are_told_apart_by_their_kind(metrics: OpenMetrics) -> None:
    metrics.histogram("x", "X.", {}).observe(1)
    metrics.gauge("x", "X.", {}).set(2)
    metrics.gauge("x_count", "X.", {}).set(3)
    metrics.gauge("y_total", "Y.", {}).set(4)
    metrics.counter("y_total", "Y.", {}).inc(5)
    found = samples(metrics)
    assert (found["x", ()], found["x_count", ()], found["x_histogram_count", ()]) == (2, 3, 1)
    assert (found["y_total", ()], found["y_total_gauge", ()]) == (5, 4)


def test_bad_names_labels_and_buckets_are_refused(metrics: OpenMetrics) -> None:
    with pytest.raises(ValueError, match="is not a metric name"):
        metrics.counter("1a", "A.", {})
    with pytest.raises(ValueError, match="is not a label name"):
        metrics.gauge("a", "A.", {"a-b": "x"})
    with pytest.raises(ValueError, match=r"label 'le' .* is taken"):
        metrics.histogram("a", "A.", {"le": "x"})
    with pytest.raises(ValueError, match="must rise"):
        metrics.histogram("a", "A.", {}, (2, 1))


def test_label_sets_beyond_the_limit_share_one_child_and_are_counted() -> None:
    metrics = OpenMetrics(None, max_label_sets=3)
    for i in range(10):
        metrics.counter("a_total", "A.", {f"n{i}": str(i)}).inc()
    found = samples(metrics)
    assert found["a_total", (("overflow", "true"),)] == 7
    assert found[OVERFLOW_METRIC, (("metric", "a_total"),)] == 7
    assert len([name for name, _ in found if name == "a_total"]) == 4


def test_number_of_metrics_is_bounded() -> None:
    metrics = OpenMetrics(None)
    for i in range(1000):
        metrics.counter(f"m{i}_total", "M.", {})
    with pytest.raises(ValueError, match="one too many"):
        metrics.counter("n_total", "N.", {})


def test_metrics_of_several_processes_are_merged_and_outlive_them(tmp_path: Path) -> None:
    metrics = OpenMetrics(tmp_path, 0)
    metrics.gauge("load", "Load.", {}).set(7)
    for slot in (1, 2, 1):
        subprocess.run([sys.executable, "-c", _WRITE, str(tmp_path), str(slot)], check=True)
    found = samples(metrics)
    assert found["rows_total", ()] == 9
    assert found["rows_total", (("stage", "1"),)] == 4
    assert found["load", ()] == 1  # the last to set it
    metrics.gauge("load", "Load.", {}).set(8)
    assert samples(metrics)["load", ()] == 8


def test_increments_of_eight_threads_are_all_counted(metrics: OpenMetrics) -> None:
    def work() -> None:
        for _ in range(5_000):
            metrics.counter("a_total", "A.", {"x": "1"}).inc()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert samples(metrics)["a_total", (("x", "1"),)] == 40_000


_KINDS = st.sampled_from(["counter", "gauge", "histogram"])
_NAMES = st.sampled_from(["x", "x_total", "x_count", "x_sum", "x_gauge", "x_histogram", "x_histogram_count"])


@given(st.lists(st.tuples(_KINDS, _NAMES, st.sampled_from([{}, {"a": "1"}, {"b": "1"}])), max_size=12))
def test_page_has_each_series_and_each_head_once(given_metrics: list[tuple[str, str, dict[str, str]]]) -> None:
    metrics = OpenMetrics(None)
    for kind, name, labels in given_metrics:
        if kind == "counter":
            metrics.counter(name, "C.", labels).inc()
        elif kind == "gauge":
            metrics.gauge(name, "G.", labels).set(1)
        else:
            metrics.histogram(name, "H.", labels, (1,)).observe(1)
    lines = metrics.render().decode().splitlines()
    series = [line.rpartition(" ")[0] for line in lines if not line.startswith("#")]
    heads = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(series) == len(set(series))
    assert len(heads) == len(set(heads))
    values = sum(1 for line in lines if not line.startswith("#") and "_bucket" not in line)
    histograms = {(name, tuple(labels)) for kind, name, labels in given_metrics if kind == "histogram"}
    others = {(kind, name, tuple(labels)) for kind, name, labels in given_metrics if kind != "histogram"}
    assert values == len(others) + 2 * len(histograms)
