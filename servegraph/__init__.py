"""The public face of servegraph: models as classes, graphs of them, and the places where they run.

Names are imported when they are first used, so that ``import servegraph`` stays quick and brings in
no optional package. What is listed in ``__all__`` is the public surface; a test freezes it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from servegraph import errors as errors
    from servegraph.graph.builtin import ChoiceByField as ChoiceByField
    from servegraph.graph.builtin import Filter as Filter
    from servegraph.graph.builtin import Map as Map
    from servegraph.graph.builtin import Merge as Merge
    from servegraph.graph.context import GraphContext as GraphContext
    from servegraph.graph.events import DROP as DROP
    from servegraph.graph.events import Event as Event
    from servegraph.graph.events import Headers as Headers
    from servegraph.graph.events import Response as Response
    from servegraph.graph.policies import StepPolicy as StepPolicy
    from servegraph.runtimes.function import ServingFunction as ServingFunction
    from servegraph.runtimes.function import code_to_function as code_to_function
    from servegraph.runtimes.function import new_function as new_function
    from servegraph.serving.enrichment import EnrichmentModelRouter as EnrichmentModelRouter
    from servegraph.serving.enrichment import EnrichmentVotingEnsemble as EnrichmentVotingEnsemble
    from servegraph.serving.ensembles import VotingEnsemble as VotingEnsemble
    from servegraph.serving.parallel import ParallelRun as ParallelRun
    from servegraph.serving.remote import BatchHttpRequests as BatchHttpRequests
    from servegraph.serving.remote import RemoteStep as RemoteStep
    from servegraph.serving.routers import BaseModelRouter as BaseModelRouter
    from servegraph.serving.routers import ModelRouter as ModelRouter
    from servegraph.serving.v2 import V2ModelServer as V2ModelServer

__version__ = "0.1.0"

# Public name -> the module that defines it. A name that is itself a module stands beside its own path.
_MODULES = {
    "BaseModelRouter": "servegraph.serving.routers",
    "BatchHttpRequests": "servegraph.serving.remote",
    "ChoiceByField": "servegraph.graph.builtin",
    "DROP": "servegraph.graph.events",
    "EnrichmentModelRouter": "servegraph.serving.enrichment",
    "EnrichmentVotingEnsemble": "servegraph.serving.enrichment",
    "Event": "servegraph.graph.events",
    "Filter": "servegraph.graph.builtin",
    "GraphContext": "servegraph.graph.context",
    "Headers": "servegraph.graph.events",
    "Map": "servegraph.graph.builtin",
    "Merge": "servegraph.graph.builtin",
    "ModelRouter": "servegraph.serving.routers",
    "ParallelRun": "servegraph.serving.parallel",
    "RemoteStep": "servegraph.serving.remote",
    "Response": "servegraph.graph.events",
    "ServingFunction": "servegraph.runtimes.function",
    "StepPolicy": "servegraph.graph.policies",
    "V2ModelServer": "servegraph.serving.v2",
    "VotingEnsemble": "servegraph.serving.ensembles",
    "code_to_function": "servegraph.runtimes.function",
    "errors": "servegraph.errors",
    "new_function": "servegraph.runtimes.function",
}

__all__ = [
    "BaseModelRouter",
    "BatchHttpRequests",
    "ChoiceByField",
    "DROP",
    "EnrichmentModelRouter",
    "EnrichmentVotingEnsemble",
    "Event",
    "Filter",
    "GraphContext",
    "Headers",
    "Map",
    "Merge",
    "ModelRouter",
    "ParallelRun",
    "RemoteStep",
    "Response",
    "ServingFunction",
    "StepPolicy",
    "V2ModelServer",
    "VotingEnsemble",
    "__version__",
    "code_to_function",
    "errors",
    "new_function",
]


def __getattr__(name: str) -> object:
    module_name = _MODULES.get(name)
    if module_name is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(module_name)
    value: object = module if module_name == f"{__name__}.{name}" else getattr(module, name)
    globals()[name] = value  # the next access is an ordinary one
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
