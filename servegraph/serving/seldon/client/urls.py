"""Where a call goes: the one place that knows the paths of gateways, deployments and components."""

from __future__ import annotations

from servegraph.serving.seldon.client.errors import SeldonClientException
from servegraph.serving.seldon.client.options import ClientOptions, Operation

_PATHS = {
    "predict": "/api/v1.0/predictions",
    "feedback": "/api/v1.0/feedback",
    "explain": "/api/v1.0/explain",
}


def deployment_url(options: ClientOptions, operation: Operation) -> str:
    """The URL of an operation of a deployment.

    Raises:
        SeldonClientException: the deployment, or for an explanation the predictor, is not named.
    """
    base = _base(options.gateway_endpoint, options)
    return base + _prefix(options, operation) + (options.http_path or _PATHS[operation])


def microservice_url(options: ClientOptions, method: str) -> str:
    """The URL of a method of a single component."""
    return f"{_base(options.microservice_endpoint, options)}/{method}"


def host_and_port(endpoint: str) -> str:
    """The endpoint without a scheme before it or a slash behind it: what gRPC connects to."""
    return endpoint.rpartition("://")[2].rstrip("/")


def is_encrypted(endpoint: str, options: ClientOptions) -> bool:
    """Whether an endpoint is reached by TLS: as the options say, or as the scheme before it does.

    Raises:
        SeldonClientException: the two contradict each other, or the scheme is another one.
    """
    if "://" not in endpoint:
        return options.encrypted
    scheme = endpoint.partition("://")[0]
    if scheme not in ("http", "https") or (scheme == "http" and options.encrypted):
        wanted = "https" if options.encrypted else "http or https"
        raise SeldonClientException(f"the endpoint {endpoint!r} must be reached by {wanted}: write host:port alone")
    return scheme == "https"


def _base(endpoint: str, options: ClientOptions) -> str:
    return f"{'https' if is_encrypted(endpoint, options) else 'http'}://{host_and_port(endpoint)}"


def _prefix(options: ClientOptions, operation: Operation) -> str:
    if options.gateway_prefix is not None:
        prefix = options.gateway_prefix.strip("/")
        return f"/{prefix}" if prefix else ""
    if options.gateway == "seldon":
        return ""
    name = options.deployment_name
    if not name:
        raise SeldonClientException(
            f"gateway={options.gateway!r} needs deployment_name, or gateway_prefix in its place; "
            "to call a server that stands alone take gateway='seldon'"
        )
    if operation == "explain":
        if not options.predictor:
            raise SeldonClientException("an explanation needs the name of the predictor")
        name = f"{name}-explainer/{options.predictor}"
    return "/seldon/" + (f"{options.namespace}/" if options.namespace else "") + name
