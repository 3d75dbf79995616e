"""``seldon_core.wrapper``: a component as a Flask application, for the tests that components have of themselves.

Servers are started by ``servegraph microservice``, which needs no Flask.
"""

from __future__ import annotations

from typing import Any

from servegraph import jsoncodec
from servegraph.graph.events import Event, Response, Trigger
from servegraph.importing import import_extra
from servegraph.runtimes.function import new_function
from servegraph.runtimes.mock import MockServer
from servegraph.runtimes.seldon.compat.metrics import SeldonMetrics
from servegraph.runtimes.seldon.metrics import MetricsPage
from servegraph.serving.seldon.endpoint import ComponentEndpoint
from servegraph.serving.seldon.environment import read_environment
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


def _server(user_model: Any, seldon_metrics: SeldonMetrics) -> MockServer:
    environment = read_environment()
    function = new_function(type(user_model).__name__.lower().replace("_", "-"), kind="serving")
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


__all__ = ["get_metrics_microservice", "get_rest_microservice"]
