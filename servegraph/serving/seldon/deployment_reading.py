"""SeldonDeployments from YAML or JSON: read, completed with defaults and checked.

Every message names the place: ``spec.predictors[0].graph.children[1].name: ...``, with the line where the text has
one. Of Kubernetes' own objects (pods, resources) only what is needed is read, and the rest is let be; in the nodes
of a graph, where a typing mistake changes what is run, unknown keys are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from servegraph.errors import SpecError, closest
from servegraph.graph.spec_text import read_yaml_documents, with_line
from servegraph.serving.seldon.deployment import (
    METHODS,
    TYPES,
    UNKNOWN_IMPLEMENTATION,
    Container,
    Deployment,
    PredictorSpec,
    UnitEndpoint,
    UnitLogger,
    UnitParameter,
    UnitSpec,
)
from servegraph.serving.seldon.deployment_checks import check_deployment
from servegraph.serving.seldon.deployment_fields import Section
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.parameters import PARAMETER_TYPES, typed_parameters
from servegraph.serving.seldon.servers.implementations import IMPLEMENTATIONS

KIND: Final = "SeldonDeployment"
VERSIONS: Final = tuple(f"machinelearning.seldon.io/{v}" for v in ("v1", "v1alpha2", "v1alpha3"))
_PROTOCOLS: Final = ("seldon", "tensorflow", "v2", "kfserving")
_MAX_DEPTH: Final = 64

_NODE: Final = (
    "name", "type", "implementation", "methods", "children", "endpoint", "parameters", "modelUri", "logger",
    "serviceAccountName", "envSecretRefName", "storageInitializerImage", "image",
)  # fmt: skip
_PREDICTOR: Final = (
    "name", "graph", "componentSpecs", "componentSpec", "replicas", "annotations", "labels", "svcOrchSpec",
    "engineResources", "traffic", "shadow", "explainer", "ssl", "progressDeadlineSeconds",
)  # fmt: skip
_SPEC: Final = (
    "name", "predictors", "protocol", "transport", "serverType", "annotations", "replicas", "oauth_key",
    "oauth_secret",
)  # fmt: skip
_ENDPOINT: Final = ("service_host", "service_port", "httpPort", "grpcPort", "type")


def read_deployments(text: str | bytes) -> list[Deployment]:
    """The SeldonDeployments of a YAML or JSON text with any number of documents; other objects are passed over.

    Raises:
        SpecError: one of them cannot be read or contradicts itself.
    """
    found = []
    for document, lines in read_yaml_documents(text):
        for value, place in _items(document):
            try:
                found.append(parse_deployment(value, place))
            except SpecError as exc:
                placed = with_line(exc, lines)
                raise SpecError(placed.message.replace("$.", "", 1)) from exc
    return found


def is_deployment(data: Any) -> bool:
    """Whether plain data is a SeldonDeployment, or a list of objects with one in it."""
    return bool(_items(data))


def _items(document: Any, place: str = "$") -> list[tuple[Mapping[str, Any], str]]:
    """The deployments in a document, each with its path."""
    if not isinstance(document, Mapping):
        return []
    kind = document.get("kind")
    if kind == KIND:
        return [(document, place)]
    items = document.get("items")
    if kind in ("List", f"{KIND}List") and isinstance(items, list):
        return [found for i, item in enumerate(items) for found in _items(item, f"{place}.items[{i}]")]
    return []


def parse_deployment(data: Mapping[str, Any], path: str = "$") -> Deployment:
    """The deployment that plain data describes, with defaults.

    Args:
        data: the object with ``kind: SeldonDeployment``.
        path: where it stands in its document, for messages.

    Raises:
        SpecError: a key or value is wrong; the message begins with its path.
    """
    top = Section(data, path, "a SeldonDeployment")
    top.only(("apiVersion", "kind", "metadata", "spec", "status"))
    version = top.text("apiVersion")
    if version not in VERSIONS:
        raise top.refuse("apiVersion", f"is {version!r}; {closest(version, VERSIONS)}")
    metadata = Section(data.get("metadata"), top.at("metadata"), "metadata")
    spec = Section(data.get("spec"), top.at("spec"), "the spec of a SeldonDeployment")
    spec.only(_SPEC)
    name = metadata.text("name") or spec.text("name")
    if not name:
        raise metadata.refuse("name", "the deployment has no name")
    if spec.choice("serverType", ("rpc", "kafka"), "rpc") == "kafka":
        raise spec.refuse("serverType", "is kafka; a deployment is served over HTTP: use a queue step for a topic")
    annotations = {**metadata.texts("annotations"), **spec.texts("annotations")}
    sections = spec.objects("predictors", "a predictor")
    if not sections:
        raise spec.refuse("predictors", "the deployment has no predictors")
    predictors = [_predictor(s, i, annotations, len(sections)) for i, s in enumerate(sections)]
    deployment = Deployment(
        name=name,
        namespace=metadata.text("namespace", "default"),
        any_namespace=not metadata.text("namespace"),
        protocol=spec.choice("protocol", _PROTOCOLS, "seldon"),
        transport=spec.choice("transport", ("rest", "grpc"), "rest"),
        predictors=tuple(predictors),
        labels=metadata.texts("labels"),
    )
    check_deployment(deployment, path)
    return deployment


def _predictor(section: Section, index: int, annotations: Mapping[str, str], count: int) -> PredictorSpec:
    section.only(_PREDICTOR)
    name = section.text("name") or ("default" if count == 1 else "")
    if not name:
        raise section.refuse("name", "a predictor needs a name")
    containers = _containers(section)
    if "graph" not in section.values:
        raise section.refuse("graph", "the predictor has no graph")
    graph = _node(Section(section.values["graph"], section.at("graph"), "a node of a graph"), containers, 0)
    if section.values.get("explainer"):
        explainer = Section(section.values["explainer"], section.at("explainer"), "an explainer")
        if explainer.text("type"):
            raise explainer.refuse("type", "explainers do not run in a graph: serve the explainer as a component")
    return PredictorSpec(
        name=name,
        path=section.path,
        graph=graph,
        traffic=section.whole("traffic", 0, 0, 100),
        shadow=section.flag("shadow"),
        annotations={**annotations, **section.texts("annotations")},
        labels={"version": name, **section.texts("labels")},
        env=_env(Section(section.values.get("svcOrchSpec"), section.at("svcOrchSpec"), "svcOrchSpec")),
    )


def _containers(section: Section) -> dict[str, Container]:
    """The containers of a predictor's pods by name."""
    found: dict[str, Container] = {}
    key = "componentSpecs" if "componentSpecs" in section.values else "componentSpec"
    for pod in section.objects(key, "a pod template", single=True):
        metadata = Section(pod.values.get("metadata"), pod.at("metadata"), "metadata")
        spec = Section(pod.values.get("spec"), pod.at("spec"), "a pod's spec")
        sections = spec.objects("containers", "a container", single=True)
        for container in sections:
            name = container.text("name")
            if name in found:
                raise container.refuse("name", f"there are two containers {name!r}")
            annotations = metadata.texts("annotations")
            found[name] = Container(
                name, container.text("image"), _env(container), _elsewhere(container), annotations, len(sections) == 1
            )
    return found


def _env(section: Section) -> dict[str, str]:
    """The environment variables of a container whose values stand in the deployment."""
    variables = section.objects("env", "a variable")
    return {v.text("name"): v.text("value") for v in variables if "value" in v.values}


def _elsewhere(section: Section) -> tuple[str, ...]:
    """The environment variables of a container whose values are elsewhere; of whole secrets what they are."""
    single = [v.text("name") for v in section.objects("env", "a variable") if v.values.get("valueFrom")]
    for source in section.objects("envFrom", "a source of variables"):
        for key, what in (("secretRef", "secret"), ("configMapRef", "config map")):
            if source.values.get(key):
                inner = Section(source.values[key], source.at(key), what)
                single.append(f"all of {what} {inner.text('name')!r}")
    return tuple(single)


def _node(section: Section, containers: Mapping[str, Container], depth: int) -> UnitSpec:
    if depth > _MAX_DEPTH:
        raise SpecError(f"{section.path}: the graph is nested deeper than {_MAX_DEPTH} levels")
    section.only(_NODE)
    name = section.text("name")
    if not name:
        raise section.refuse("name", "a node needs a name")
    if "/" in name or name != name.strip():
        raise section.refuse("name", f"{name!r} is no name of a node: it must not begin or end with blanks or hold '/'")
    children = section.objects("children", "a node of a graph", single=True)
    implementation = section.text("implementation", UNKNOWN_IMPLEMENTATION).upper() or UNKNOWN_IMPLEMENTATION
    methods = _methods(section)
    given = None if section.values.get("type") is None else section.choice("type", TYPES, "UNKNOWN_TYPE")
    return UnitSpec(
        name=name,
        path=section.path,
        type=_defaulted(given, methods, implementation),
        implementation=implementation,
        methods=methods,
        children=tuple(_node(child, containers, depth + 1) for child in children),
        endpoint=_endpoint(section),
        parameters=tuple(_parameter(p) for p in section.objects("parameters", "a parameter", single=True)),
        model_uri=section.text("modelUri"),
        logger=_logger(section),
        container=containers.get(name),
    )


def _defaulted(given: str | None, methods: tuple[str, ...], implementation: str) -> str:
    """The type of a node: what says nothing about itself is a model, and so is every packaged server."""
    if given is None and not methods and implementation == UNKNOWN_IMPLEMENTATION:
        return "MODEL"
    if given in (None, "UNKNOWN_TYPE") and (implementation in IMPLEMENTATIONS or implementation.endswith("_SERVER")):
        return "MODEL"
    return given or "UNKNOWN_TYPE"


def _methods(section: Section) -> tuple[str, ...]:
    value = section.values.get("methods")
    if value is None:
        return ()
    if not isinstance(value, list):
        raise section.refuse("methods", "must be a list")
    named = Section({str(i): v for i, v in enumerate(value)}, section.at("methods"), "methods")
    found = []
    for i in range(len(value)):
        text = named.text(str(i)).upper()
        if text not in METHODS:
            raise SpecError(f"{section.at('methods')}[{i}]: is {text!r}; {closest(text, METHODS)}")
        found.append(text)
    return tuple(found)


def _endpoint(section: Section) -> UnitEndpoint | None:
    if not section.values.get("endpoint"):
        return None
    inner = Section(section.values["endpoint"], section.at("endpoint"), "an endpoint")
    inner.only(_ENDPOINT)
    kind = inner.choice("type", ("REST", "GRPC"), "REST")
    own = "httpPort" if kind == "REST" else "grpcPort"
    port = inner.whole(own, 0, 0, 65535) or inner.whole("service_port", 0, 0, 65535)
    host = inner.text("service_host")
    return UnitEndpoint(host, port, kind) if host or port else None


def _parameter(section: Section) -> UnitParameter:
    section.only(("name", "value", "type"))
    name = section.text("name")
    if not name:
        raise section.refuse("name", "a parameter needs a name")
    parameter = UnitParameter(name, section.text("value"), section.choice("type", PARAMETER_TYPES, "STRING"))
    try:
        typed_parameters([parameter.to_dict()])
    except SeldonMicroserviceException:
        why = f"the parameter {name!r} is of type {parameter.type}, and {parameter.value[:80]!r} is none"
        raise section.refuse("value", why) from None
    return parameter


def _logger(section: Section) -> UnitLogger | None:
    if section.values.get("logger") is None:
        return None
    inner = Section(section.values["logger"], section.at("logger"), "a logger")
    inner.only(("mode", "url"))
    if not inner.text("mode"):
        raise inner.refuse("mode", "a logger needs a mode: all, request or response")
    return UnitLogger(inner.choice("mode", ("all", "request", "response"), "all"), inner.text("url"))
