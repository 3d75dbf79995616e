from __future__ import annotations

import asyncio
import itertools
import math
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from servegraph.runtimes.seldon.metrics import (
    TIMER_BUCKETS,
    MetricsPage,
    SeldonMetricSink,
    label_name,
    metric_name,
    open_metrics,
)
from servegraph.serving.seldon.custom_metrics import CustomMetrics
from servegraph.serving.seldon.identity import UnitIdentity

IDENTITY = UnitIdentity("node", "repo:5000/img:v2", "main", "v7", "iris")
LABELS = {
    "deployment_name": "iris",
    "predictor_name": "main",
    "predictor_version": "v7",
    "model_name": "node",
    "model_image": "repo:5000/img",
    "model_version": "v2",
    "seldon_deployment_name": "iris",
    "image_name": "repo:5000/img",
    "image_version": "v2",
}

_WORKER = """
import sys
from pathlib import Path
from servegraph.runtimes.seldon.metrics import SeldonMetricSink, open_metrics
from servegraph.serving.seldon.custom_metrics import CustomMetrics
from servegraph.serving.seldon.identity import UnitIdentity
slot = int(sys.argv[2])
sink = SeldonMetricSink(open_metrics(Path(sys.argv[1]), slot), UnitIdentity())
for _ in range(5000):
    sink.feedback(0.5)
    CustomMetrics(sink).take([{"type": "COUNTER", "key": "rows", "value": 1}], "predict")
"""


class Page:
    def __init__(self, **kwargs: Any) -> None:
        self.metrics = open_metrics(None)
        self.sink = SeldonMetricSink(self.metrics, IDENTITY, **kwargs)
        self.custom = CustomMetrics(self.sink)

    def take(self, *given: dict[str, Any], operation: str = "predict") -> list[dict[str, Any]]:
        return self.custom.take(list(given), operation)

    def text(self) -> str:
        return self.metrics.render().decode()

    def samples(self) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
        found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        for family in text_string_to_metric_families(self.text()):
            for sample in family.samples:
                found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
        return found


def labels(**more: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted({**LABELS, "method": "predict", **more}.items()))


def test_page_is_empty_when_nothing_was_recorded() -> None:
    assert Page().text() == ""


def test_three_kinds_are_shown_with_the_labels_of_the_node() -> None:
    page = Page()
    for _ in range(2):
        page.take(
            {"type": "COUNTER", "key": "rows", "value": 2},
            {"type": "GAUGE", "key": "load", "value": 0.5, "tags": {"a": "b"}},
            {"type": "TIMER", "key": "took", "value": 20.2},
        )
    found = page.samples()
    assert found["rows_total"] == {labels(): 4}
    assert found["load"] == {labels(a="b"): 0.5}
    assert found["took_count"] == {labels(): 2}
    assert found["took_sum"][labels()] == pytest.approx(0.0404)
    assert page.text().count("# TYPE") == page.text().count("# HELP") == 3


def test_counter_named_total_is_not_named_so_twice() -> None:
    page = Page()
    page.take({"type": "COUNTER", "key": "rows_total", "value": 2})
    assert page.samples()["rows_total"] == {labels(): 2}


def test_timer_buckets_are_those_that_dashboards_know() -> None:
    assert len(TIMER_BUCKETS) == 51
    assert TIMER_BUCKETS[:2] == (0.0, 0.001)
    assert TIMER_BUCKETS[-1] == 30.0
    ratios = [high / low for low, high in itertools.pairwise(TIMER_BUCKETS[1:])]
    assert ratios == pytest.approx([ratios[0]] * 49)
    page = Page()
    page.take({"type": "TIMER", "key": "t", "value": 1.0})
    buckets = {dict(names)["le"]: value for names, value in page.samples()["t_bucket"].items()}
    assert len(buckets) == 52
    assert (buckets["0"], buckets["0.001"], buckets["+Inf"]) == (0, 1, 1)


def test_metric_and_tag_names_are_made_good_and_the_nodes_labels_win() -> None:
    page = Page()
    tags = {"a-b": "1", "9": "2", "__x": "3", "": "4", "model_name": "mine", "method": "mine", "le": "5"}
    page.take({"type": "TIMER", "key": "9 my.metric", "value": 1, "tags": tags})
    page.take({"type": "COUNTER", "key": "ok:name", "value": 1})
    found = page.samples()
    assert found["_9_my_metric_count"] == {labels(a_b="1", _9="2", x="3", _="4", le_="5"): 1}
    assert found["ok:name_total"] == {labels(): 1}


@given(st.text(min_size=1, max_size=20), st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=3))
def test_any_key_and_tags_give_a_page_that_can_be_read(key: str, tags: dict[str, str]) -> None:
    page = Page()
    shown = page.take(*({"type": kind, "key": key, "value": 1, "tags": tags} for kind in ("COUNTER", "GAUGE", "TIMER")))
    assert [metric["key"] for metric in shown] == [key] * 3
    # The parser splits lines at every line end of Unicode, the format at \n alone.
    odd = str.maketrans(dict.fromkeys("\r\v\f\x1c\x1d\x1e\x85\u2028\u2029", " "))
    kinds = {f.type for f in text_string_to_metric_families(page.text().translate(odd))}
    assert kinds == {"counter", "gauge", "histogram"}
    assert metric_name(key).replace(":", "_").isidentifier()
    assert all(label_name(tag).isidentifier() for tag in tags)


def test_tags_that_an_old_key_would_mix_up_are_two_series() -> None:
    page = Page()
    page.take({"type": "COUNTER", "key": "k", "value": 1, "tags": {"a": "b_c-d"}})
    page.take({"type": "COUNTER", "key": "k", "value": 1, "tags": {"a": "b", "c": "d"}})
    assert set(page.samples()["k_total"].values()) == {1}
    assert len(page.samples()["k_total"]) == 2


def test_worker_id_is_shown_only_when_asked_for() -> None:
    page = Page(worker_id="3")
    page.take({"type": "COUNTER", "key": "k", "value": 1})
    assert page.samples()["k_total"] == {labels(worker_id="3"): 1}


def test_feedback_is_counted_with_its_reward_also_when_that_is_negative() -> None:
    page = Page()
    for reward in (1.0, -0.25, 0.0, math.nan):
        page.sink.feedback(reward)
    found = page.samples()
    assert found["seldon_api_model_feedback_total"] == {labels(method="feedback"): 2}
    assert found["seldon_api_model_feedback_reward_total"] == {labels(method="feedback"): 0.75}


def test_feedback_is_not_counted_where_an_old_engine_does() -> None:
    page = Page(count_feedback=False)
    page.sink.feedback(1.0)
    assert page.text() == ""


def test_bad_metric_leaves_the_page_readable_and_is_counted() -> None:
    page = Page()
    page.take({"type": "COUNTER", "key": "good", "value": 1}, {"type": "COUNTER", "key": "bad"})
    found = page.samples()
    assert found["good_total"] == {labels(): 1}
    assert found["servegraph_custom_metrics_rejected_total"] == {labels(): 1}


def test_keys_beyond_the_limit_are_left_out_and_counted() -> None:
    page = Page()
    for i in range(1100):
        page.take({"type": "GAUGE", "key": f"k{i}", "value": 1})
    found = page.samples()
    assert "k0" in found
    assert "k1099" not in found
    assert found["servegraph_custom_metrics_rejected_total"] == {labels(): 100}
    assert len(found) == 1001


def test_counters_are_exact_under_eight_threads() -> None:
    page = Page()

    def work() -> None:
        for i in range(2_000):
            page.take({"type": "COUNTER", "key": "k", "value": 1, "tags": {"i": str(i % 5)}})

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(page.samples()["k_total"].values()) == [3200.0] * 5


def test_feedback_of_two_workers_is_added_up_and_outlives_them(tmp_path: Path) -> None:
    workers = [subprocess.Popen([sys.executable, "-c", _WORKER, str(tmp_path), str(slot)]) for slot in (0, 1)]
    assert [worker.wait(60) for worker in workers] == [0, 0]
    text = open_metrics(tmp_path, 2).render().decode()
    values = {line.partition("{")[0]: line.rpartition(" ")[2] for line in text.splitlines() if line[0] != "#"}
    assert values == {
        "seldon_api_model_feedback_total": "10000",
        "seldon_api_model_feedback_reward_total": "5000",
        "rows_total": "10000",
    }


def ask(page: MetricsPage, method: str, path: str) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(dict(message))

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    asyncio.run(page({"type": "http", "method": method, "path": path}, receive, send))
    return sent


def test_metrics_page_answers_its_own_path_alone() -> None:
    page = Page()
    page.take({"type": "COUNTER", "key": "k", "value": 1})
    asgi = MetricsPage(page.metrics, "prometheus")
    head, body = ask(asgi, "GET", "/prometheus")
    assert head["status"] == 200
    assert dict(head["headers"])[b"content-type"].startswith(b"text/plain; version=0.0.4")
    assert body["body"].decode() == page.text()
    assert ask(asgi, "HEAD", "/prometheus")[1]["body"] == b""
    assert ask(asgi, "GET", "/metrics")[0]["status"] == 404
    assert ask(asgi, "POST", "/prometheus")[0]["status"] == 405
