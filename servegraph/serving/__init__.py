"""What models and routers are made of: model classes, routers, ensembles, enrichment, remote calls.

Names are imported when they are first used: a graph with one router brings in neither ensembles nor HTTP.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from servegraph.serving.enrichment import EnrichmentModelRouter as EnrichmentModelRouter
    from servegraph.serving.enrichment import EnrichmentVotingEnsemble as EnrichmentVotingEnsemble
    from servegraph.serving.ensembles import VotingEnsemble as VotingEnsemble
    from servegraph.serving.features import CallableSource as CallableSource
    from servegraph.serving.features import DataFrameSource as DataFrameSource
    from servegraph.serving.features import DictSource as DictSource
    from servegraph.serving.features import FeatureSource as FeatureSource
    from servegraph.serving.model_spec import ModelSpec as ModelSpec
    from servegraph.serving.parallel import ParallelRun as ParallelRun
    from servegraph.serving.remote import BatchHttpRequests as BatchHttpRequests
    from servegraph.serving.remote import RemoteStep as RemoteStep
    from servegraph.serving.routers import BaseModelRouter as BaseModelRouter
    from servegraph.serving.routers import ModelRouter as ModelRouter
    from servegraph.serving.v2 import V2ModelServer as V2ModelServer

# Public name -> the module that defines it.
_MODULES = {
    "BaseModelRouter": "servegraph.serving.routers",
    "BatchHttpRequests": "servegraph.serving.remote",
    "CallableSource": "servegraph.serving.features",
    "DataFrameSource": "servegraph.serving.features",
    "DictSource": "servegraph.serving.features",
    "EnrichmentModelRouter": "servegraph.serving.enrichment",
    "EnrichmentVotingEnsemble": "servegraph.serving.enrichment",
    "FeatureSource": "servegraph.serving.features",
    "ModelRouter": "servegraph.serving.routers",
    "ModelSpec": "servegraph.serving.model_spec",
    "ParallelRun": "servegraph.serving.parallel",
    "RemoteStep": "servegraph.serving.remote",
    "V2ModelServer": "servegraph.serving.v2",
    "VotingEnsemble": "servegraph.serving.ensembles",
}

__all__ = [
    "BaseModelRouter",
    "BatchHttpRequests",
    "CallableSource",
    "DataFrameSource",
    "DictSource",
    "EnrichmentModelRouter",
    "EnrichmentVotingEnsemble",
    "FeatureSource",
    "ModelRouter",
    "ModelSpec",
    "ParallelRun",
    "RemoteStep",
    "V2ModelServer",
    "VotingEnsemble",
]


def __getattr__(name: str) -> object:
    module_name = _MODULES.get(name)
    if module_name is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(module_name), name)
    globals()[name] = value  # the next access is an ordinary one
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
