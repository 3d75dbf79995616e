"""From a SeldonDeployment to a function: its graph is the tree, whose nodes are steps like all others.

The root routes to the predictors, each of them to the root of its graph; a node with children is a router, a leaf a
task. The function is an ordinary one: it is served, drawn, exported and tested as any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from servegraph.errors import NotFoundError, SpecError, closest
from servegraph.graph.flow import RouterGraph
from servegraph.graph.steps import RouterStep, Step
from servegraph.runtimes.function import ServingFunction, normalize_name
from servegraph.runtimes.seldon.defaults import deployment_settings
from servegraph.runtimes.seldon.deployment_code import Code, CodeFinder
from servegraph.runtimes.seldon.deployment_drawing import drawn_deployment, drawn_predictor, drawn_unit
from servegraph.runtimes.seldon.deployment_state import STATE, check_annotated_names, state_of
from servegraph.serving.seldon.deployment import CLASS, Deployment, PredictorSpec, UnitSpec
from servegraph.serving.seldon.deployment_reading import parse_deployment, read_deployments
from servegraph.serving.seldon.parameters import typed_parameters

_HERE: Final = "servegraph.serving.seldon"
ROUTER: Final = f"{_HERE}.deployment_router.SeldonDeploymentRouter"
PREDICTOR: Final = f"{_HERE}.predictors.SeldonPredictor"
UNIT: Final = f"{_HERE}.unit.SeldonUnit"


def function_from_text(
    text: str | bytes,
    folder: str | Path = ".",
    name: str | None = None,
    components: Mapping[str, Any] | None = None,
    *,
    code_needed: bool = True,
) -> ServingFunction:
    """The function of the SeldonDeployment in a YAML or JSON text.

    Args:
        text: the text; objects of other kinds in it are passed over.
        folder: where the code of its components is looked for.
        name: the deployment, where there are several.
        components: local code by the name of a node, container or image; see `CodeFinder`.
        code_needed: whether each node must have code; a function with nodes that have none can be drawn, not run.

    Raises:
        SpecError: the text cannot be read, or a node has nothing to run.
        NotFoundError: there is no such deployment, or there are several and none is named.
    """
    found = read_deployments(text)
    if not found:
        raise NotFoundError("the text holds no SeldonDeployment")
    names = [d.name for d in found]
    if name is None and len(found) > 1:
        raise NotFoundError(
            f"the text holds {len(found)} deployments, {', '.join(names)}: say which one with --name (in Python, name=)"
        )
    for deployment in found:
        if name is None or name in (deployment.name, normalize_name(deployment.name)):
            return function_from_deployment(deployment, folder, components, code_needed=code_needed)
    raise NotFoundError(f"the text holds no deployment {name!r}; {closest(str(name), names)}")


def function_from_deployment(
    deployment: Deployment | Mapping[str, Any],
    folder: str | Path = ".",
    components: Mapping[str, Any] | None = None,
    *,
    code_needed: bool = True,
) -> ServingFunction:
    """The function of a deployment; see `function_from_text`."""
    if not isinstance(deployment, Deployment):
        deployment = parse_deployment(deployment)
    for annotation in (STATE, CLASS):
        check_annotated_names(deployment, annotation)
    finder = CodeFinder(Path(folder), components, optional=not code_needed)
    arguments = {"deployment": deployment.name, "namespace": deployment.namespace}
    more = {"any_namespace": True} if deployment.any_namespace else {}
    graph = RouterGraph(ROUTER, {**arguments, **more}, None, "", drawn_deployment(deployment))
    graph.name = "deployment"
    for predictor in deployment.predictors:
        step = RouterStep(
            PREDICTOR, {**arguments, **_shares(predictor)}, None, predictor.name, drawn_predictor(predictor)
        )
        step.add_route(predictor.graph.name, _unit_step(predictor.graph, predictor, deployment, finder))
        graph.add_route(predictor.name, step)
    finder.check()
    function = ServingFunction(deployment.name, deployment.namespace)
    function.labels = dict(deployment.labels)
    function.spec.settings = deployment_settings(deployment)
    function.spec.graph = graph
    function.spec.workdir = str(Path(folder).resolve())
    return function


def _shares(predictor: PredictorSpec) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if predictor.traffic:
        arguments["traffic"] = predictor.traffic
    if predictor.version != predictor.name:
        arguments["version"] = predictor.version
    if predictor.shadow:
        arguments["shadow"] = True
    if predictor.env.get("REQUEST_LOGGER_DEFAULT_ENDPOINT"):
        arguments["log_url"] = predictor.env["REQUEST_LOGGER_DEFAULT_ENDPOINT"]
    return arguments


def _unit_step(unit: UnitSpec, predictor: PredictorSpec, deployment: Deployment, finder: CodeFinder) -> Step:
    code = Code() if unit.hard_coded else finder.find(unit, predictor)
    arguments: dict[str, Any] = {}
    if code.reference is not None:
        arguments["component"] = code.reference
    parameters = _parameters(unit, code, finder.folder)
    if parameters:
        arguments["parameters"] = parameters
    arguments["unit"] = _options(unit, code, predictor, deployment)
    drawn = drawn_unit(unit, code.reference)
    if not unit.children:
        return Step(UNIT, arguments, None, unit.name, drawn)
    step = RouterStep(UNIT, arguments, None, unit.name, drawn)
    for child in unit.children:
        step.add_route(child.name, _unit_step(child, predictor, deployment, finder))
    return step


def _parameters(unit: UnitSpec, code: Code, folder: Path) -> list[dict[str, str]] | dict[str, Any]:
    """The node's parameters, those of the local code over them, and where its model is."""
    found = {p.name: dict(p.to_dict()) for p in unit.parameters}
    if unit.model_uri:
        place = unit.model_uri
        if "://" not in place and not Path(place).is_absolute():
            place = str((folder / place).resolve())
        found.setdefault("model_uri", {"name": "model_uri", "value": place, "type": "STRING"})
    given = list(found.values())
    return {**typed_parameters(given), **code.parameters} if code.parameters else given


def _options(unit: UnitSpec, code: Code, predictor: PredictorSpec, deployment: Deployment) -> dict[str, Any]:
    options: dict[str, Any] = {
        "name": unit.name,
        "type": unit.type,
        "deployment": deployment.name,
        "predictor": predictor.name,
        "version": predictor.version,
    }
    if unit.methods:
        options["methods"] = list(unit.methods)
    if unit.hard_coded or unit.packaged:
        options["implementation"] = unit.implementation
    if unit.image:
        options["image"] = unit.image
    container = unit.container
    if container is not None and container.env.get("MODEL_METADATA"):
        options["metadata"] = container.env["MODEL_METADATA"]
    if container is not None and code.endpoint is None and not unit.hard_coded:
        options.update({"env": dict(container.env)} if container.env else {})
        options.update({"env_elsewhere": list(container.env_elsewhere)} if container.env_elsewhere else {})
    if code.endpoint is not None:
        options["endpoint"] = code.endpoint
    elif not unit.hard_coded and state_of(unit, predictor):
        options["state_store"] = state_of(unit, predictor)
    timeout_s = predictor.timeout_s("REST" if code.endpoint is None else str(code.endpoint["type"]))
    if timeout_s is not None:
        options["timeout_s"] = timeout_s
    if unit.logger is not None:
        options["logged"] = ["request", "response"] if unit.logger.mode == "all" else [unit.logger.mode]
        if unit.logger.url:
            options["log_url"] = unit.logger.url
    return options


def function_in_file(
    path: Path, name: str | None = None, components: Mapping[str, Any] | None = None, *, code_needed: bool = True
) -> ServingFunction | None:
    """The function of the SeldonDeployment in a file; ``None`` where the file holds something else.

    Arguments are those of `function_from_text`.

    Raises:
        SpecError: the deployment is wrong; the message begins with the file.
    """
    data = path.read_bytes()
    if b"SeldonDeployment" not in data:
        return None
    try:
        if not read_deployments(data):
            return None
        return function_from_text(data, path.resolve().parent, name, components, code_needed=code_needed)
    except SpecError as exc:
        raise SpecError(f"{path}: {exc.message.replace('$.', '', 1)}") from exc
    except NotFoundError as exc:
        raise NotFoundError(f"{path}: {exc.message}") from exc
