"""Seldon components and inference graphs: the same classes, the same answers, on servegraph's engine.

Names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from servegraph.serving.seldon.bandits import EpsilonGreedy as EpsilonGreedy
    from servegraph.serving.seldon.bandits import ThompsonSampling as ThompsonSampling
    from servegraph.serving.seldon.client import SeldonClient as SeldonClient
    from servegraph.serving.seldon.errors import SeldonMicroserviceException as SeldonMicroserviceException
    from servegraph.serving.seldon.errors import SeldonNotImplementedError as SeldonNotImplementedError
    from servegraph.serving.seldon.identity import UnitIdentity as UnitIdentity
    from servegraph.serving.seldon.message import Feedback as Feedback
    from servegraph.serving.seldon.message import Message as Message
    from servegraph.serving.seldon.message import Meta as Meta
    from servegraph.serving.seldon.names import install_names as install_names
    from servegraph.serving.seldon.outliers.isolation import IsolationForestDetector as IsolationForestDetector
    from servegraph.serving.seldon.outliers.mahalanobis import MahalanobisDetector as MahalanobisDetector
    from servegraph.serving.seldon.step import ComponentStep as ComponentStep
    from servegraph.serving.seldon.storage import Storage as Storage
    from servegraph.serving.seldon.user_model import SeldonComponent as SeldonComponent
    from servegraph.serving.seldon.user_model import SeldonResponse as SeldonResponse

# Public name -> the module that defines it.
_MODULES = {
    "ComponentStep": "servegraph.serving.seldon.step",
    "EpsilonGreedy": "servegraph.serving.seldon.bandits",
    "Feedback": "servegraph.serving.seldon.message",
    "IsolationForestDetector": "servegraph.serving.seldon.outliers.isolation",
    "MahalanobisDetector": "servegraph.serving.seldon.outliers.mahalanobis",
    "Message": "servegraph.serving.seldon.message",
    "Meta": "servegraph.serving.seldon.message",
    "SeldonClient": "servegraph.serving.seldon.client",
    "SeldonComponent": "servegraph.serving.seldon.user_model",
    "SeldonMicroserviceException": "servegraph.serving.seldon.errors",
    "SeldonNotImplementedError": "servegraph.serving.seldon.errors",
    "SeldonResponse": "servegraph.serving.seldon.user_model",
    "Storage": "servegraph.serving.seldon.storage",
    "ThompsonSampling": "servegraph.serving.seldon.bandits",
    "UnitIdentity": "servegraph.serving.seldon.identity",
    "install_names": "servegraph.serving.seldon.names",
}

__all__ = [
    "ComponentStep",
    "EpsilonGreedy",
    "Feedback",
    "IsolationForestDetector",
    "MahalanobisDetector",
    "Message",
    "Meta",
    "SeldonClient",
    "SeldonComponent",
    "SeldonMicroserviceException",
    "SeldonNotImplementedError",
    "SeldonResponse",
    "Storage",
    "ThompsonSampling",
    "UnitIdentity",
    "install_names",
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
