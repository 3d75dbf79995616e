"""What the code of a node may be besides a component: a model of servegraph; and what the tree tells a component."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from servegraph.errors import GraphError
from servegraph.graph.context import GraphContext
from servegraph.graph.events import Event
from servegraph.graph.resolve import instantiate, is_async
from servegraph.serving.seldon.bandits import Bandit
from servegraph.serving.seldon.locate import find_component
from servegraph.serving.seldon.message import Message
from servegraph.serving.seldon.parameters import typed_parameters
from servegraph.serving.seldon.tree_branches import model_reply, model_request
from servegraph.serving.v2 import V2ModelServer


def code_of_node(code: Any, context: GraphContext) -> Any:
    """The class, function or object that is a node's code; see `find_component`."""
    return find_component(code, context.workdir) if isinstance(code, str) else code


def is_v2_model(code: Any) -> bool:
    """Whether a node's code is a `V2ModelServer`: its class, or one that is made already."""
    return isinstance(code, V2ModelServer) or (isinstance(code, type) and issubclass(code, V2ModelServer))


def v2_model(code: Any, parameters: Any, context: GraphContext, name: str, operations: Sequence[str]) -> V2ModelServer:
    """The model of a node, whose ``model_uri`` is the model's ``model_path``.

    Raises:
        GraphError: the node has other operations than ``predict``, or the class takes other arguments.
    """
    others = [op for op in operations if op not in ("predict", "send_feedback")]
    if others:
        raise GraphError(f"{_class(code).__name__} is a V2ModelServer, which only predicts: it has no {others[0]}")
    arguments = typed_parameters(parameters)
    if isinstance(code, V2ModelServer):
        arguments = {**code.to_dict()["class_args"], **arguments}
    if "model_uri" in arguments:
        arguments.setdefault("model_path", arguments.pop("model_uri"))
    model = instantiate(_class(code), arguments, {"name": name, "context": context}, (), name)
    assert isinstance(model, V2ModelServer)
    return model


def _class(code: Any) -> type:
    return code if isinstance(code, type) else type(code)


def model_function(model: V2ModelServer) -> Callable[[Event], Any]:
    """A function of the event whose body is the message to predict for; gives the `Message` of the model's outputs."""
    handler: Callable[[Event], Any] = model.event_handler
    if is_async(handler):

        async def acall(event: Event) -> Message:
            message = _asked(event)
            return model_reply((await handler(event)).body, message)

        return acall

    def call(event: Event) -> Message:
        message = _asked(event)
        return model_reply(handler(event).body, message)

    return call


def _asked(event: Event) -> Message:
    message: Message = event.body
    event.path, event.body = "infer", model_request(message)
    return message


def with_branches(code: Any, parameters: Any, branches: int) -> Any:
    """A bandit's parameters, with the number of the node's children where they do not say how many branches it has."""
    if not branches or not isinstance(code, type) or not issubclass(code, Bandit):
        return parameters
    given = typed_parameters(parameters)
    return given if "n_branches" in given else {**given, "n_branches": branches}


def check_branches(component: Any, branches: int) -> None:
    """Raise `GraphError` for a bandit that has more or fewer branches than its node has children."""
    if branches and isinstance(component, Bandit) and component.n_branches != branches:
        raise GraphError(
            f"the router has {component.n_branches} branches (n_branches), and the node {branches} children"
        )
