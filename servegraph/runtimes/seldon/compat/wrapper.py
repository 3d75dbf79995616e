"""``seldon_core.wrapper``: a component as a Flask application or gRPC servicer, for the tests that it has of itself.

Servers are started by ``servegraph microservice``, which needs no Flask.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from servegraph import jsoncodec
from servegraph.graph.events import Event, Response, Trigger
from servegraph.importing import import_extra
from servegraph.runtimes.function import new_function
from servegraph.runtimes.mock import MockServer
from servegraph.runtimes.seldon.compat.metrics import SeldonMetrics
from servegraph.runtimes.seldon.metrics import MetricsPage
from servegraph.runtimes.seldon.microservice import function_name
from servegraph.serving.seldon.compat import seldon_methods
from servegraph.serving.seldon.compat.flask_utils import ANNOTATION_GRPC_MAX_MSG_SIZE
from servegraph.serving.seldon.endpoint import ComponentEndpoint
from servegraph.serving.seldon.environment import read_environment
from servegraph.serving.seldon.metadata import ModelMetadata
from servegraph.serving.seldon.step import METRIC_SINKS

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def get_rest_microservice(user_model: Any, seldon_metrics: SeldonMetrics) -> Any:
    """A Flask application that answers as the component's REST interface does.

    The component's ``load`` has run when it is there.
    """
    flask = import_extra("flask", feature="A component as a Flask application", extra="flask")
    server = _server(user_model, seldon_metrics)
    app = flask.Flask(__name__, static_folder=None)

    def answer(path: str = "") -> Any:
        request = flask.request
        event = Event(
            request.get_data(),
            request.content_type,
            request.headers.items(),
            request.method,
            f"/{path}",
            trigger=Trigger("http"),
        )
        event._query = request.query_string.decode("latin-1")
        status, headers, content_type, body = _reply(server, event)
        return flask.Response(body, status, headers, content_type=content_type)

    app.add_url_rule("/", view_func=answer, methods=_METHODS)
    app.add_url_rule("/<path:path>", view_func=answer, methods=_METHODS)
    return app


def get_metrics_microservice(seldon_metrics: SeldonMetrics) -> Any:
    """A Flask application that shows metrics, at ``PREDICTIVE_UNIT_METRICS_ENDPOINT``."""
    flask = import_extra("flask", feature="Metrics as a Flask application", extra="flask")
    page = MetricsPage(seldon_metrics, read_environment().metrics_path)
    app = flask.Flask(__name__, static_folder=None)

    def answer(path: str = "") -> Any:
        status, headers, body = page.answer(flask.request.method, f"/{path}")
        return flask.Response(body, status, [(name.decode(), value.decode()) for name, value in headers])

    app.add_url_rule("/", view_func=answer)
    app.add_url_rule("/<path:path>", view_func=answer)
    return app


class SeldonModelGRPC:
    """The methods of all of Seldon's gRPC services on a component; each takes a protobuf message and gives one.

    Args:
        user_model: the component.
        seldon_metrics: where its metrics are kept.
    """

    def __init__(self, user_model: Any, seldon_metrics: SeldonMetrics) -> None:
        self.user_model = user_model
        self.seldon_metrics = seldon_metrics
        environment = read_environment()
        self._metadata = ModelMetadata.of(user_model, environment.identity.image, environment.metadata)

    def Predict(self, request_grpc: Any, context: Any) -> Any:  # noqa: N802 - as the protocol names it
        """The component's prediction."""
        return seldon_methods.predict(self.user_model, request_grpc, self.seldon_metrics)

    def SendFeedback(self, feedback_grpc: Any, context: Any) -> Any:  # noqa: N802
        """The component's answer to a feedback."""
        unit = read_environment().identity.unit_id or "0"
        return seldon_methods.send_feedback(self.user_model, feedback_grpc, unit, self.seldon_metrics)

    def TransformInput(self, request_grpc: Any, context: Any) -> Any:  # noqa: N802
        """The transformed input."""
        return seldon_methods.transform_input(self.user_model, request_grpc, self.seldon_metrics)

    def TransformOutput(self, request_grpc: Any, context: Any) -> Any:  # noqa: N802
        """The transformed output."""
        return seldon_methods.transform_output(self.user_model, request_grpc, self.seldon_metrics)

    def Route(self, request_grpc: Any, context: Any) -> Any:  # noqa: N802
        """The child that the component chooses."""
        return seldon_methods.route(self.user_model, request_grpc, self.seldon_metrics)

    def Aggregate(self, request_grpc: Any, context: Any) -> Any:  # noqa: N802
        """The one message that the component makes of several."""
        return seldon_methods.aggregate(self.user_model, request_grpc, self.seldon_metrics)

    def Metadata(self, request_grpc: Any, context: Any) -> Any:  # noqa: N802
        """The component's metadata; an empty message where it is not valid."""
        return self._metadata.to_proto()

    ModelMetadata = Metadata

    def GraphMetadata(self, request_grpc: Any, context: Any) -> Any:  # noqa: N802
        """Nothing: a component knows of no graph.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("GraphMetadata not available on the Model level.")


def get_grpc_server(
    user_model: Any, seldon_metrics: SeldonMetrics, annotations: Mapping[str, str] | None = None, num_threads: int = 1
) -> Any:
    """A server of grpcio with all services of a component, to be given a port and started.

    Args:
        user_model: the component.
        seldon_metrics: where its metrics are kept.
        annotations: ``seldon.io/grpc-max-message-size`` limits messages.
        num_threads: how many calls run at the same time.
    """
    grpc = import_extra("grpc", feature="A component as a gRPC server", extra="grpc")
    from servegraph.serving.seldon.proto import prediction_pb2_grpc as services

    options = [("grpc.so_reuseport", 1)]
    size = (annotations or {}).get(ANNOTATION_GRPC_MAX_MSG_SIZE)
    if size is not None:
        options += [("grpc.max_send_message_length", int(size)), ("grpc.max_receive_message_length", int(size))]
    server = grpc.server(ThreadPoolExecutor(max_workers=num_threads), options=options)
    servicer: Any = SeldonModelGRPC(user_model, seldon_metrics)
    services.add_GenericServicer_to_server(servicer, server)
    services.add_ModelServicer_to_server(servicer, server)
    services.add_TransformerServicer_to_server(servicer, server)
    services.add_OutputTransformerServicer_to_server(servicer, server)
    services.add_CombinerServicer_to_server(servicer, server)
    services.add_RouterServicer_to_server(servicer, server)
    services.add_SeldonServicer_to_server(servicer, server)
    return server


def _server(user_model: Any, seldon_metrics: SeldonMetrics) -> MockServer:
    environment = read_environment()
    function = new_function(function_name(type(user_model).__name__), kind="serving")
    graph = function.set_topology("flow", engine="async")
    graph.to(
        ComponentEndpoint,
        name=type(user_model).__name__,
        component=user_model,
        unit=environment.identity,
        metrics_in_response=environment.metrics_in_response,
        passthrough=environment.passthrough,
        metadata=environment.metadata,
        flask_config=dict(environment.flask),
    ).respond()
    context = function.new_context(is_mock=True)
    context.services[METRIC_SINKS] = lambda identity: seldon_metrics
    server = MockServer(function, function.namespaces(None, {}), context)
    server.load()
    return server


def _reply(server: MockServer, event: Event) -> tuple[int, dict[str, str], str, bytes]:
    """Status, header fields, media type and body of the answer to an event."""
    try:
        answer: Response = server.run(event, silent=True)
    except Exception as exc:  # noqa: BLE001 - every failure has an answer
        reply = server.data_plane.failure(exc, event)
        return reply.status, dict(reply.headers or {}), reply.content_type or "application/json", reply.body
    body = answer.body
    if not isinstance(body, bytes):
        is_text = isinstance(body, str)
        body = body.encode() if is_text else jsoncodec.dumps(body, sort_keys=True) + b"\n"
    return answer.status_code, dict(answer.headers), answer.content_type or "application/json", body


__all__ = ["SeldonModelGRPC", "get_grpc_server", "get_metrics_microservice", "get_rest_microservice"]
