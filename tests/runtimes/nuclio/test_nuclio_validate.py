from __future__ import annotations

import copy
from typing import Any

import pytest

from servegraph.errors import SpecError
from servegraph.runtimes.nuclio.validate import validate_config

GOOD: dict[str, Any] = {
    "metadata": {"name": "f", "labels": {"nuclio.io/project-name": "demo"}},
    "spec": {
        "handler": "f-nuclio:handler",
        "runtime": "python:3.11",
        "build": {"functionSourceCode": "eA=="},
        "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"secretKeyRef": {}}}],
        "minReplicas": 1,
        "maxReplicas": 2,
        "eventTimeout": "1m30s",
        "volumes": [{"volume": {"name": "v"}, "volumeMount": {"name": "v"}}],
        "triggers": {
            "http": {"kind": "http", "numWorkers": 2, "attributes": {"ingresses": {"0": {"paths": ["/"]}}}},
            "in": {
                "kind": "kafka-cluster",
                "explicitAckMode": "explicitOnly",
                "attributes": {
                    "brokers": ["b:1"], "topics": ["t"], "consumerGroup": "g", "workerAllocationMode": "static",
                },
            },
            "tick": {"kind": "cron", "attributes": {"interval": "5s"}},
        },
    },
}  # fmt: skip


def test_config_that_is_right_passes() -> None:
    validate_config(GOOD)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("metadata.name", "My_Fn", r"\$\.metadata\.name"),
        ("metadata.name", "dlx", "keeps for itself"),
        ("metadata.namespace", "a b", r"\$\.metadata\.namespace"),
        ("metadata.labels", {}, "project-name"),
        ("metadata.labels.x", "ä", r"\$\.metadata\.labels\.x"),
        ("spec.handler", "m:obj.f", r"\$\.spec\.handler"),
        ("spec.handler", "a.b:f", "without dots"),
        ("spec.runtime", "python", "write the version"),
        ("spec.build", {}, "no code"),
        ("spec.build", [], r"\$\.spec\.build: must be an object"),
        ("spec.env", {"A": "1"}, r"\$\.spec\.env: must be a list"),
        ("spec.env", [{"name": "A=", "value": "1"}], r"\$\.spec\.env\[0\]"),
        ("spec.env", [{"name": "A", "value": "1"}] * 2, "given twice"),
        ("spec.env", [{"name": "A"}], "either value or valueFrom"),
        ("spec.env", [{"name": "A", "value": 1}], "must be text"),
        ("spec.minReplicas", 3, "above maxReplicas"),
        ("spec.maxReplicas", 0, "at least 1"),
        ("spec.replicas", "2", r"\$\.spec\.replicas"),
        ("spec.eventTimeout", "30", "no duration"),
        ("spec.readinessTimeoutSeconds", 0, "readinessTimeoutSeconds"),
        ("spec.volumes", [{"volume": {"name": "a"}, "volumeMount": {"name": "b"}}], "same name"),
        ("spec.volumes", [1], "same name"),
        ("spec.triggers.two", {"kind": "http"}, "only one may be of kind http"),
        ("spec.triggers.two", {"kind": "htp"}, "did you mean 'http'"),
        ("spec.triggers.two", "x", "must be an object"),
        ("spec.triggers.http.name", "web", "named like its key"),
        ("spec.triggers.http.numWorkers", 0, "from 1 to 100000"),
        ("spec.triggers.http.maxWorkers", 1, "old name"),
        ("spec.triggers.http.attributes.ingresses", {"0": "/"}, "must be an object"),
        ("spec.triggers.http.explicitAckMode", "enable", "static|streams"),
        ("spec.triggers.http.batch", {"batchSize": 0}, "at least 1"),
        ("spec.triggers.http.batch", {"timeout": "1"}, "no duration"),
        ("spec.triggers.in.batch", {}, "kind http"),
        ("spec.triggers.in.attributes.workerAllocationMode", "pool", "static"),
        ("spec.triggers.in.explicitAckMode", "yes", "valid: disable"),
        ("spec.triggers.in.attributes.topics", [], "list of texts"),
        ("spec.triggers.in.attributes.consumerGroup", "", "consumerGroup"),
        ("spec.triggers.in.workerTerminationTimeout", 10, "no duration"),
        ("spec.triggers.tick.attributes", {}, "interval or schedule"),
        ("spec.triggers.v", {"kind": "v3ioStream"}, "as many minReplicas"),
    ],
)
def test_config_that_nuclio_would_refuse_is_refused(path: str, value: Any, message: str) -> None:
    config = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    target = config
    for part in parents:
        target = target[part]
    target[last] = value
    with pytest.raises(SpecError, match=message):
        validate_config(config)
