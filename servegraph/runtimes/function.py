"""`ServingFunction`: what a user declares, tests, serves and deploys."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self

from servegraph.errors import GraphError, SettingsError, closest
from servegraph.graph.context import GraphContext
from servegraph.graph.flow import FlowGraph, Graph, RouterGraph
from servegraph.graph.resolve import Namespace
from servegraph.graph.steps import REMOTE, RouterStep, Step

if TYPE_CHECKING:
    from servegraph.monitoring.tracking import Tracking
    from servegraph.runtimes.batch import BatchJob
    from servegraph.runtimes.mock import MockServer

_NOT_NAME = re.compile(r"[^a-z0-9-]+")


@dataclass(slots=True)
class FunctionSpec:
    """What a function is made of."""

    graph: Graph | None = None
    """The graph."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Read by ``context.get_param`` and a model's ``get_param``."""
    load_mode: str | None = None
    """``sync`` (default) or ``async``: whether the server waits for its models."""
    load_timeout_s: float | None = None
    """Seconds one attempt to load a model may take."""
    default_content_type: str = ""
    """The media type of requests that name none."""
    error_stream: str = ""
    """Stream URI that records of failed steps go to."""
    graph_initializer: Any = None
    """Called with the server before its steps are built; a function or its name."""
    tracking: Tracking | None = None
    """Where predictions are recorded; see ``set_tracking``."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of the local server, by name; flags, file and environment go before them."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables of a deployment."""
    image: str = ""
    """Container image of a deployment."""
    requirements: list[str] = field(default_factory=list)
    """Packages that a deployment installs."""
    commands: list[str] = field(default_factory=list)
    """Further commands that build a deployment's image, in order."""
    config: dict[str, Any] = field(default_factory=dict)
    """Fields that go over those of a Nuclio function configuration: ``{"spec": {"maxReplicas": 4}}``."""
    source: str = ""
    """The Python text of the function's code, for deployments that carry it inline."""
    filename: str = ""
    """The file that holds the function's code."""
    workdir: str = ""
    """The folder that relative model paths start from; the current one where it is empty."""
    description: str = ""
    """For people."""


class ServingFunction:
    """A function: a name, code, a graph, parameters. Made by `new_function` or `code_to_function`."""

    kind = "serving"

    def __init__(self, name: str, project: str = "default", tag: str = "", spec: FunctionSpec | None = None) -> None:
        self.name = normalize_name(name)
        self.project = project
        self.tag = tag
        self.labels: dict[str, str] = {}
        self.verbose = False
        self.spec = spec or FunctionSpec()
        self._secrets: dict[str, str] = {}
        self._mock: MockServer | None = None
        self._made_in = ""  # the name of the user's module that made it

    @property
    def uri(self) -> str:
        """``project/name[:tag]``."""
        return f"{self.project}/{self.name}" + (f":{self.tag}" if self.tag else "")

    # -- the graph --------------------------------------------------------------------------------------------------

    def set_topology(
        self,
        topology: str | None = None,
        class_name: Any = None,
        engine: str | None = None,
        exist_ok: bool = False,
        *,
        allow_cyclic: bool = False,
        max_iterations: int | None = None,
        fail_fast: bool = False,
        **class_args: Any,
    ) -> Any:
        """Give the function a graph and return it.

        Args:
            topology: ``router`` (one router at the root) or ``flow`` (a graph of steps).
            class_name: the router's class (name, class or object); `ModelRouter` when not given.
            engine: ``async`` (default) or ``sync``; flows only.
            exist_ok: replace a graph that is there already.
            allow_cyclic: steps of the flow may lead back to earlier ones.
            max_iterations: how often one event may pass a step of a cycle; 100 when not given.
            fail_fast: a failing branch cancels the others.
            **class_args: arguments of the router.

        Raises:
            GraphError: there is a graph already, or the topology is unknown.
        """
        topology = topology or "router"
        if self.spec.graph is not None and not exist_ok:
            raise GraphError("the function has a graph already: set_topology(..., exist_ok=True) replaces it")
        if topology == "router":
            if allow_cyclic or max_iterations is not None or fail_fast or engine not in (None, "sync", "async"):
                raise GraphError("allow_cyclic, max_iterations, fail_fast and engine are for flows, not for a router")
            self.spec.graph = RouterGraph(class_name, class_args, None, "")
        elif topology == "flow":
            if class_args or class_name is not None:
                raise GraphError(f"a flow takes no class; put steps into it (got {class_name or sorted(class_args)})")
            self.spec.graph = FlowGraph(
                engine or "async", allow_cyclic=allow_cyclic, max_iterations=max_iterations, fail_fast=fail_fast
            )
        else:
            raise GraphError(f"topology is {topology!r}; {closest(topology, ('router', 'flow'))}")
        return self.spec.graph

    @property
    def graph(self) -> Any:
        """The function's graph; `GraphError` when there is none."""
        if self.spec.graph is None:
            raise GraphError(f"function {self.name!r} has no graph: call set_topology(...) or add_model(...)")
        return self.spec.graph

    def add_model(
        self,
        key: str,
        model_path: str | None = None,
        class_name: Any = None,
        model_url: str | None = None,
        handler: Any = None,
        router_step: str | None = None,
        child_function: str | None = None,
        outputs: Iterable[Any] | None = None,
        **arguments: Any,
    ) -> Step:
        """Add a model to the function's router and return its route.

        Args:
            key: the model's name, ``model`` or ``model:version``.
            model_path: where the model is: a folder or file, local or behind a URI.
            class_name: the model's class (name, ``module:attr`` or class), or an object.
            model_url: the URL of a model that is served elsewhere, in place of a class.
            handler: the method that is called in place of the class's own.
            router_step: the router's name in a flow that has several.
            child_function: the child function that serves the model.
            outputs: the names of the outputs.
            **arguments: fields of `StepOptions` (``input_path``, ``policy``, …); the rest are arguments of the class.

        Raises:
            GraphError: the flow has no router, or several and ``router_step`` names none.
        """
        if self.spec.graph is None:
            self.set_topology("router")
        router = self._router(router_step)
        if model_url:
            if class_name is not None or model_path:
                raise GraphError(f"model {key!r}: model_url stands in place of class_name and model_path")
            arguments.setdefault("method", "POST")
            return router.add_route(key, class_name=REMOTE, handler=handler, url=model_url, **arguments)
        if class_name is None:
            raise GraphError(f"model {key!r} needs class_name (or model_url of a model that is served elsewhere)")
        if outputs is not None:
            arguments["outputs"] = list(outputs)
        if child_function is not None:
            arguments["function"] = child_function
        if model_path is not None:
            arguments["model_path"] = str(model_path)
        return router.add_route(key, class_name=class_name, handler=handler, **arguments)

    def _router(self, name: str | None) -> RouterStep:
        graph = self.graph
        if isinstance(graph, RouterStep):
            return graph
        routers = {n: s for n, s in graph.steps.items() if isinstance(s, RouterStep)}
        if name is not None:
            if name not in routers:
                raise GraphError(f"the graph has no router {name!r}; {closest(name, routers)}")
            return routers[name]
        if len(routers) != 1:
            raise GraphError(f"the flow has {len(routers)} routers: name one with router_step=; {closest('', routers)}")
        return next(iter(routers.values()))

    # -- surroundings -----------------------------------------------------------------------------------------------

    def set_tracking(
        self,
        stream_path: str | None = None,
        batch: int | None = None,
        sample: int | None = None,
        sampling_percentage: float | None = None,
        stream_args: Mapping[str, Any] | None = None,
        enable_tracking: bool = True,
        **options: Any,
    ) -> None:
        """Record every prediction, explanation and error in a stream.

        Args:
            stream_path: the stream's URI (``file:///…``, ``kafka://…``, ``http://…``, ``dummy://``); ``{project}``
                in it is replaced. In the mock ``dummy://`` when not given.
            batch: put this many predictions into one record.
            sample: record every n-th prediction.
            sampling_percentage: record this share of the rows of each prediction, 0 to 100.
            stream_args: options of the stream.
            enable_tracking: ``False`` turns recording off again.
            **options: ``max_queue`` and ``flush_interval_s`` of the background writer.
        """
        from servegraph.monitoring.tracking import Tracking

        self.spec.tracking = Tracking.checked(
            stream_path=stream_path,
            batch=batch,
            sample=sample,
            sampling_percentage=sampling_percentage,
            stream_args=dict(stream_args or {}),
            enabled=enable_tracking,
            **options,
        )

    def with_secrets(self, kind: str, source: Any) -> Self:
        """Give the function secrets for ``context.get_secret``. They are in no spec that leaves this process.

        Args:
            kind: ``inline`` (a mapping), ``file`` (lines of ``NAME=value``) or ``env`` (names of variables).
            source: the mapping, the file's path, or the names, comma-separated or as a list.
        """
        from servegraph.runtimes.secrets import read_secrets

        self._secrets.update(read_secrets(kind, source))
        return self

    def set_env(self, name: str, value: Any) -> Self:
        """Set an environment variable of a deployment."""
        self.spec.env[str(name)] = str(value)
        return self

    # -- running ----------------------------------------------------------------------------------------------------

    def to_mock_server(
        self,
        namespace: Any = None,
        current_function: str = "*",
        *,
        track_models: bool = True,
        workdir: str | None = None,
    ) -> MockServer:
        """The function in this process, with its models loaded; for notebooks and tests.

        Args:
            namespace: a module, a dict or a list of them: where the names of classes and functions are looked up
                first. The module that made the function and the caller's globals are always looked at.
            current_function: run the steps of this child function only.
            track_models: record predictions when ``set_tracking`` asks for it.
            workdir: a folder that relative model paths start from; the function's own where none is given.

        Raises:
            GraphError: the graph does not fit together.
            ModelLoadError: a model could not be loaded.
        """
        from servegraph.runtimes.mock import MockServer

        context = self.new_context(is_mock=True)
        context.current_function = current_function
        if workdir is not None:
            context.workdir = workdir
        server = MockServer(self, self.namespaces(namespace, sys._getframe(1).f_globals), context, track=track_models)
        try:
            server.load()
        except BaseException:
            server.close()
            raise
        return server

    def to_job(
        self, namespace: Any = None, *, track_models: bool = True, workdir: str | None = None, threads: int = 8
    ) -> BatchJob:
        """The function as a batch job: ``job.run(frame_or_files)`` sends every row through the graph.

        Args:
            namespace: as in `to_mock_server`.
            track_models: record predictions when ``set_tracking`` asks for it.
            workdir: a folder that relative model paths start from; the function's own where none is given.
            threads: how many threads run synchronous steps.
        """
        from servegraph.runtimes.batch import BatchJob

        spaces = self.namespaces(namespace, sys._getframe(1).f_globals)
        return BatchJob(self, spaces, track=track_models, workdir=workdir, threads=threads)

    def new_context(self, *, is_mock: bool = False, worker_id: int = 0) -> GraphContext:
        """A context for one server of this function."""
        context = GraphContext(
            name=self.name,
            project=self.project,
            tag=self.tag,
            parameters=self.spec.parameters,
            secrets=self._secrets,
            is_mock=is_mock,
            verbose=self.verbose,
            worker_id=worker_id,
        )
        context.workdir = self.spec.workdir or None
        return context

    def namespaces(self, given: Any = None, caller: Mapping[str, Any] | None = None) -> list[Namespace]:
        """Where names are looked up, in order: what is given, the function's code, the module that made the function,
        the caller's globals.
        """
        spaces: list[Namespace] = []
        for item in given if isinstance(given, (list, tuple)) else [given]:
            if item is None:
                continue
            if not isinstance(item, (Mapping, ModuleType)):
                raise GraphError(f"namespace must be a module, a dict or a list of them, not {type(item).__name__}")
            spaces.append(item)
        code = self._code_module()
        if code is not None:
            spaces.append(code)
        maker = sys.modules.get(self._made_in)
        if maker is not None and maker is not code:
            spaces.append(maker)
        if caller is not None:
            spaces.append(caller)
        return spaces

    def _code_module(self) -> ModuleType | None:
        if not (self.spec.filename or self.spec.source):
            return None
        from servegraph.runtimes.source import load_file, load_source

        file = Path(self.spec.filename)
        # Where the file is not, as in a deployment, its text stands in for it.
        if file.suffix == ".py" and (file.is_file() or not self.spec.source):
            return load_file(file)
        return load_source(self.name, self.spec.source) if self.spec.source else None

    def serve(self, **settings: Any) -> Any:
        """Serve the function over HTTP on this machine.

        In a script this blocks until the process is told to stop. With ``block=False`` (the default in a notebook)
        it returns a handle with ``url`` and ``stop()``, also usable as a context manager.

        Args:
            **settings: any setting of the server (``host``, ``http_port``, ``limits``, …), and ``block``.
        """
        from servegraph.runtimes.serve import serve

        block = settings.pop("block", None)
        return serve(self, sys._getframe(1).f_globals, settings, block)

    def invoke(
        self,
        path: str = "/",
        body: Any = None,
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        url: str | None = None,
        timeout_s: float = 30.0,
    ) -> Any:
        """Call the function and return the answer's body: over HTTP where ``url`` is given or the function is
        served from this process, else on a mock server that is kept for further calls.

        Raises:
            RequestFailedError: the answer's status is 300 or above.
        """
        from servegraph.runtimes.client import invoke

        target = url or self.url
        if target is not None:
            return invoke(target, path, body, method, headers, timeout_s)
        if self._mock is None:
            caller = sys._getframe(1).f_globals
            self._mock = self.to_mock_server(caller)
        return self._mock.test(path, body, method or "", headers)

    url: str | None = None
    """Where the function is being served from this process, or was deployed to."""

    def plot(self, filename: str | None = None, **options: Any) -> Any:
        """A drawing of the graph; see ``servegraph.graph.plot``."""
        from servegraph.graph.plot import plot

        return plot(self.graph, filename, **options)

    def validate(self, namespace: Any = None) -> list[Any]:
        """The problems of the graph that can be found without running it; empty when there are none."""
        from servegraph.graph.validate import validate

        namespaces = self.namespaces(namespace, sys._getframe(1).f_globals)
        return validate(self.graph, namespaces=namespaces, folder=self.spec.workdir or None)

    def to_dict(self) -> dict[str, Any]:
        """The function as data; see ``runtimes/function_spec.py``."""
        from servegraph.runtimes.function_spec import function_to_dict

        return function_to_dict(self)

    def export(self, path: str | Path | None = None, target: str = "nuclio") -> dict[str, Any]:
        """The function as another platform deploys it.

        Args:
            path: the YAML file to write as well.
            target: ``nuclio``: a function configuration with the code inline; see ``runtimes/nuclio/export.py``.

        Raises:
            SpecError: something in the function cannot be exported; the message says where and what to do.
        """
        if target != "nuclio":
            raise SettingsError(f"target is {target!r}; {closest(target, ('nuclio',))}")
        from servegraph.runtimes.nuclio.export import export_nuclio

        return export_nuclio(self, path)

    def __repr__(self) -> str:
        return f"<ServingFunction {self.uri}>"


def new_function(
    name: str = "",
    project: str = "default",
    tag: str = "",
    kind: str = "serving",
    image: str = "",
    command: str = "",
    requirements: Iterable[str] | None = None,
    **spec: Any,
) -> ServingFunction:
    """A new function.

    Args:
        name: its name; letters, digits and ``-`` (others are replaced).
        project: the project that it belongs to.
        tag: a tag of this version of it.
        kind: ``serving``.
        image: container image of deployments.
        command: the Python file that holds its code.
        requirements: packages that deployments install.
        **spec: further fields of `FunctionSpec`.
    """
    if kind not in ("serving", ""):
        raise SettingsError(f"kind is {kind!r}; servegraph makes functions of kind 'serving'")
    if command and not Path(command).is_file():
        raise SettingsError(f"command={command!r}: there is no such file")
    known = FunctionSpec.__dataclass_fields__
    for key in spec:
        if key not in known:
            raise SettingsError(f"a function has no field {key!r}; {closest(key, known)}")
    function = ServingFunction(
        name or (Path(command).stem if command else "function"),
        project,
        tag,
        FunctionSpec(image=image, filename=command, requirements=list(requirements or ()), **spec),
    )
    maker = str(sys._getframe(1).f_globals.get("__name__", ""))
    if not maker.startswith("servegraph."):
        function._made_in = maker
    return function


def code_to_function(
    name: str = "",
    project: str = "default",
    tag: str = "",
    filename: str = "",
    kind: str = "serving",
    image: str = "",
    requirements: Iterable[str] | None = None,
) -> ServingFunction:
    """A function whose code is a ``.py`` file or a notebook; the text is embedded, so that deployments carry it.

    Cells and regions of a notebook are left out by ``# nuclio: ignore``, ``# nuclio: start-code`` and
    ``# nuclio: end-code``, as nuclio-jupyter does it.

    Args:
        name: the function's name; that of the file where none is given.
        project: the project that it belongs to.
        tag: a tag of this version of it.
        filename: the file; the notebook or script that calls this where none is given.
        kind: ``serving``.
        image: container image of deployments.
        requirements: packages that deployments install.
    """
    from servegraph.runtimes.code import read_code

    code = read_code(filename or sys._getframe(1).f_globals.get("__file__", ""), name)
    function = new_function(name or code.name, project, tag, kind, image, "", requirements)
    function.spec.source = code.source
    function.spec.filename = code.filename
    function.spec.env.update(code.env)
    function.spec.commands.extend(code.commands)
    function.spec.config.update(code.config)
    return function


def normalize_name(name: str) -> str:
    """A name as Kubernetes wants it (DNS label): lower case, ``-`` for what it cannot hold.

    Raises:
        SettingsError: nothing is left of it, or more than 63 characters.
    """
    clean = _NOT_NAME.sub("-", name.lower()).strip("-")
    if not clean or len(clean) > 63:
        raise SettingsError(f"{name!r} is no function name: use 1 to 63 letters, digits or '-'")
    return clean
