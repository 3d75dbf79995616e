"""The checks of Nuclio's platform that need no platform: what it would refuse is refused before it is sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from servegraph.errors import SpecError, closest
from servegraph.graph.spec_fields import at, misfit, shown

RESERVED: Final = ("controller", "dashboard", "scaler", "dlx")
KINDS: Final = (
    "http", "kafka-cluster", "v3ioStream", "cron", "rabbit-mq", "nats", "mqtt", "kinesis", "pubsub", "eventhub",
    "kickstart", "v3io-item-poller",
)  # fmt: skip
MAX_WORKERS: Final = 100_000

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?", re.ASCII)
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?", re.ASCII)
_ENV_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_HANDLER = re.compile(r"([\w|-]+(?:\.[\w|-]+)*):(\w+)")
_RUNTIME = re.compile(r"python:3\.\d+")
_DURATION = re.compile(r"(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+")

Config = Mapping[str, Any]


def validate_config(config: Config) -> None:
    """Check a Nuclio function configuration.

    Raises:
        SpecError: Nuclio would refuse it, or build something that does not start; the message has the path.
    """
    metadata, spec = _object(config, "metadata", "$"), _object(config, "spec", "$")
    _check_metadata(metadata)
    _check_code(spec)
    _check_environment(spec.get("env") or [], "$.spec.env")
    _check_scale(spec)
    _check_duration(spec.get("eventTimeout"), "$.spec.eventTimeout")
    readiness = spec.get("readinessTimeoutSeconds", 120)
    if not _is_whole(readiness, 1):
        raise misfit("$.spec.readinessTimeoutSeconds", f"must be a whole number of seconds above 0, not {readiness!r}")
    _check_volumes(spec.get("volumes") or [])
    _check_triggers(spec)


def _object(parent: Config, key: str, path: str) -> Config:
    value = parent.get(key, {})
    if not isinstance(value, Mapping):
        raise misfit(at(path, key), f"must be an object, not {shown(value)}")
    return value


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _check_metadata(metadata: Config) -> None:
    name = metadata.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise misfit("$.metadata.name", f"{name!r} is no name: 1 to 63 of a-z, 0-9 and '-', with none at the ends")
    if name in RESERVED:
        raise misfit("$.metadata.name", f"{name!r} is a name that Nuclio keeps for itself")
    namespace = metadata.get("namespace")
    if namespace is not None and not (isinstance(namespace, str) and _NAME.fullmatch(namespace)):
        raise misfit("$.metadata.namespace", f"{namespace!r} is no namespace")
    labels = _object(metadata, "labels", "$.metadata")
    for key, value in labels.items():
        path = at("$.metadata.labels", key)
        if not isinstance(key, str) or not _LABEL_KEY.fullmatch(key):
            raise misfit(path, f"{key!r} is no name of a label")
        if not isinstance(value, str) or not _LABEL_VALUE.fullmatch(value):
            raise misfit(path, f"{value!r} is no value of a label: at most 63 letters, digits, '-', '_' and '.'")
    if not labels.get("nuclio.io/project-name"):
        raise misfit("$.metadata.labels", "Nuclio needs the label nuclio.io/project-name")


def _check_code(spec: Config) -> None:
    handler, runtime = spec.get("handler"), spec.get("runtime")
    found = _HANDLER.fullmatch(handler) if isinstance(handler, str) else None
    if found is None:
        raise misfit("$.spec.handler", f"{handler!r} is no handler: write module:function")
    if not isinstance(runtime, str) or not _RUNTIME.fullmatch(runtime):
        raise misfit("$.spec.runtime", f"{runtime!r} is no runtime: write the version, such as python:3.11")
    build = _object(spec, "build", "$.spec")
    if "." in found.group(1) and build.get("functionSourceCode"):
        raise misfit("$.spec.handler", f"{handler!r}: code that is given inline is a module without dots in its name")
    if not any((spec.get("image"), build.get("functionSourceCode"), build.get("path"), build.get("image"))):
        raise misfit("$.spec.build", "there is no code: give image, build.functionSourceCode or build.path")


def _check_environment(variables: Any, path: str) -> None:
    if not isinstance(variables, list):
        raise misfit(path, f"must be a list of objects with name and value, not {shown(variables)}")
    seen: set[str] = set()
    for index, variable in enumerate(variables):
        place = at(path, index)
        name = variable.get("name") if isinstance(variable, Mapping) else None
        if not isinstance(name, str) or not _ENV_NAME.fullmatch(name):
            raise misfit(place, f"{name!r} is no name of an environment variable")
        if name in seen:
            raise misfit(place, f"{name!r} is given twice")
        seen.add(name)
        if ("value" in variable) == ("valueFrom" in variable):
            raise misfit(place, f"{name!r} needs either value or valueFrom")
        if not isinstance(variable.get("value", ""), str):
            raise misfit(at(place, "value"), "must be text")


def _check_scale(spec: Config) -> None:
    for key in ("minReplicas", "maxReplicas", "replicas"):
        if spec.get(key) is not None and not _is_whole(spec[key], 0):
            raise misfit(at("$.spec", key), f"must be a whole number, not {spec[key]!r}")
    least, most = spec.get("minReplicas"), spec.get("maxReplicas")
    if most is not None and most < 1:
        raise misfit("$.spec.maxReplicas", "must be at least 1")
    if least is not None and most is not None and least > most:
        raise misfit("$.spec.minReplicas", f"is {least}, above maxReplicas {most}")
    if least == 0 and most is None:
        raise misfit("$.spec.minReplicas", "is 0, which needs maxReplicas")


def _check_duration(value: Any, path: str) -> None:
    if value is not None and not (isinstance(value, str) and _DURATION.fullmatch(value)):
        raise misfit(path, f"{value!r} is no duration such as 30s or 1m30s")


def _check_volumes(volumes: Any) -> None:
    if not isinstance(volumes, list):
        raise misfit("$.spec.volumes", f"must be a list, not {shown(volumes)}")
    for index, pair in enumerate(volumes):
        path = at("$.spec.volumes", index)
        parts = [pair.get(k) for k in ("volume", "volumeMount")] if isinstance(pair, Mapping) else []
        names = [p.get("name") for p in parts if isinstance(p, Mapping)]
        if len(names) != 2 or not names[0] or names[0] != names[1]:
            raise misfit(path, "must be an object with volume and volumeMount of the same name")


# -- triggers ----------------------------------------------------------------------------------------------------------


def _check_triggers(spec: Config) -> None:
    triggers = _object(spec, "triggers", "$.spec")
    for key, trigger in triggers.items():
        path = at("$.spec.triggers", key)
        if not isinstance(trigger, Mapping):
            raise misfit(path, f"must be an object, not {shown(trigger)}")
        kind = trigger.get("kind")
        if kind not in KINDS:
            raise misfit(at(path, "kind"), f"there is no trigger of kind {kind!r}; {closest(str(kind), KINDS)}")
        if trigger.get("name", key) != key:
            raise misfit(at(path, "name"), f"is {trigger['name']!r}; a trigger is named like its key")
        _check_trigger(trigger, path)
        check = _BY_KIND.get(kind)
        if check is not None:
            check(trigger, spec, path)
    web = [k for k, t in triggers.items() if t["kind"] == "http"]
    if len(web) > 1:
        raise misfit("$.spec.triggers", f"only one may be of kind http, and {', '.join(web)} are")


def _check_trigger(trigger: Config, path: str) -> None:
    for key in ("numWorkers", "maxWorkers"):
        if key in trigger and not (_is_whole(trigger[key], 1) and trigger[key] <= MAX_WORKERS):
            raise misfit(at(path, key), f"must be a whole number from 1 to {MAX_WORKERS}, not {trigger[key]!r}")
    if "numWorkers" in trigger and "maxWorkers" in trigger:
        raise misfit(at(path, "maxWorkers"), "is the old name of numWorkers: give one of them")
    for key in ("workerTerminationTimeout", "waitExplicitAckDuringRebalanceTimeout"):
        _check_duration(trigger.get(key), at(path, key))
    attributes = _object(trigger, "attributes", path)
    mode = trigger.get("explicitAckMode") or "disable"
    if mode not in ("disable", "enable", "explicitOnly"):
        raise misfit(at(path, "explicitAckMode"), f"is {mode!r}; valid: disable, enable, explicitOnly")
    if mode != "disable" and attributes.get("workerAllocationMode") != "static":
        raise misfit(at(path, "explicitAckMode"), f"{mode!r} needs attributes.workerAllocationMode: static")
    batch = trigger.get("batch")
    if batch is not None:
        if not isinstance(batch, Mapping) or trigger["kind"] != "http":
            raise misfit(at(path, "batch"), "is an object, and for triggers of kind http")
        if not _is_whole(batch.get("batchSize", 10), 1):
            raise misfit(at(at(path, "batch"), "batchSize"), f"must be at least 1, not {batch['batchSize']!r}")
        _check_duration(batch.get("timeout"), at(at(path, "batch"), "timeout"))


def _check_http(trigger: Config, spec: Config, path: str) -> None:
    ingresses = _object(_object(trigger, "attributes", path), "ingresses", at(path, "attributes"))
    for name, ingress in ingresses.items():
        if not isinstance(ingress, Mapping):
            raise misfit(at(at(at(path, "attributes"), "ingresses"), name), f"must be an object, not {shown(ingress)}")
    if trigger.get("explicitAckMode") not in (None, "", "disable"):
        raise misfit(at(path, "explicitAckMode"), "is for triggers that read streams")


def _check_kafka(trigger: Config, spec: Config, path: str) -> None:
    attributes = _object(trigger, "attributes", path)
    for key in ("brokers", "topics"):
        value = attributes.get(key)
        if not isinstance(value, list) or not value or not all(isinstance(v, str) and v for v in value):
            raise misfit(at(at(path, "attributes"), key), f"must be a list of texts, not {shown(value)}")
    if not attributes.get("consumerGroup"):
        raise misfit(at(path, "attributes"), "consumerGroup is missing")


def _check_v3io(trigger: Config, spec: Config, path: str) -> None:
    least, most, fixed = spec.get("minReplicas"), spec.get("maxReplicas"), spec.get("replicas")
    if fixed is None and least is not None and most is not None and least != most:
        raise misfit(path, "triggers of kind v3ioStream need as many minReplicas as maxReplicas")


def _check_cron(trigger: Config, spec: Config, path: str) -> None:
    attributes = _object(trigger, "attributes", path)
    if bool(attributes.get("interval")) == bool(attributes.get("schedule")):
        raise misfit(at(path, "attributes"), "a trigger of kind cron needs either interval or schedule")
    _check_duration(attributes.get("interval"), at(at(path, "attributes"), "interval"))


_BY_KIND: Final[dict[str, Callable[[Config, Config, str], None]]] = {
    "http": _check_http,
    "kafka-cluster": _check_kafka,
    "v3ioStream": _check_v3io,
    "cron": _check_cron,
}

__all__ = ["SpecError", "validate_config"]
