"""Routers that look up a request's features before its models see it.

A request names entities, ``{"inputs": [{"user_id": 7}, …]}``; the models get their features as rows, in the order
of the source's features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from servegraph.errors import GraphError, StepError, UnprocessableError
from servegraph.graph.calls import Call, InlineLimits, make_call
from servegraph.graph.context import GraphContext
from servegraph.graph.events import Event
from servegraph.graph.plan import Route
from servegraph.graph.policies import DEFAULT_POLICY
from servegraph.graph.resolve import is_async
from servegraph.serving.ensembles import VotingEnsemble
from servegraph.serving.features import FeatureSource, Imputation, Row, as_source, as_values, read_policy
from servegraph.serving.protocols import oip
from servegraph.serving.routers import BaseModelRouter, ModelRouter, refuse_unknown


class Enricher:
    """Puts features in the place of entities, for one router.

    Args:
        name: the router's name.
        source: where features come from.
        impute_policy: what stands in for missing ones.
        features: their names, in order; those that the source tells when not given.
        inputs_key: what the inputs are called in a request.
    """

    def __init__(
        self,
        name: str,
        source: FeatureSource,
        impute_policy: Mapping[str, Any] | None,
        features: Sequence[str] | None,
        inputs_key: str,
    ) -> None:
        self.name = name
        self.source = source
        told = getattr(source, "features", None) if features is None else features
        self.features: list[str] | None = list(told) if told is not None else None
        self.inputs_key = inputs_key
        self.policy = dict(impute_policy or {})
        self.imputation = Imputation({})
        self.is_async = is_async(source.get)

    def prepare(self) -> None:
        """Look up the statistics that the policy names."""
        self.imputation = read_policy(self.policy, self.source, self.name)

    @property
    def call(self) -> Call:
        """The lookup as a guarded call: a source that blocks never holds up the event loop."""
        function = self._enrich_async if self.is_async else self._enrich
        return make_call(f"{self.name}.features", function, self.is_async, DEFAULT_POLICY, InlineLimits())

    def _enrich(self, event: Event) -> Event:
        entities = self._entities(event.body)
        if entities:
            event.body = self._enriched(event.body, self.source.get(entities))
        return event

    async def _enrich_async(self, event: Event) -> Event:
        entities = self._entities(event.body)
        if entities:
            rows: Any = self.source.get(entities)  # of a source that is_async, so a coroutine
            event.body = self._enriched(event.body, await rows)
        return event

    def _entities(self, body: Any) -> list[dict[str, Any]] | None:
        """Copies of the entities that a body names; ``None`` where it is no request with inputs."""
        if not isinstance(body, dict) or not isinstance(body.get(self.inputs_key), list):
            return None  # the models say what they miss
        if oip.is_tensor_request(body):
            raise UnprocessableError(
                f"router {self.name!r} looks up features: send the entities as objects, not as tensors"
            )
        inputs = body[self.inputs_key]
        for i, entity in enumerate(inputs):
            if not isinstance(entity, dict):
                raise UnprocessableError(
                    f"$.{self.inputs_key}[{i}]: router {self.name!r} looks up features: it takes an object of "
                    f"key names and values, not {type(entity).__name__}"
                )
        return [dict(entity) for entity in inputs]

    def _enriched(self, body: dict[str, Any], rows: Any) -> dict[str, Any]:
        """A body whose inputs are rows of features."""
        entities = body[self.inputs_key]
        rows = list(rows)
        if len(rows) != len(entities):
            raise StepError(f"router {self.name!r}: the source gave {len(rows)} rows for {len(entities)} entities")
        names = self.features
        if names is None:
            first = next((row for row in rows if isinstance(row, Mapping)), None)
            names = list(first) if first is not None else None
        return {**body, self.inputs_key: [self._row(row, names, i) for i, row in enumerate(rows)]}

    def _row(self, row: Row, names: list[str] | None, index: int) -> list[Any]:
        if row is None:
            if names is None or not self.imputation.covers(names):
                raise UnprocessableError(f"$.{self.inputs_key}[{index}]: there are no features for this entity")
            return self.imputation.fill([None] * len(names), names)
        values = as_values(row, names)
        if names is None:
            if self.policy:
                raise StepError(f"router {self.name!r} imputes by name: name the features with features=[...]")
            return values
        return self.imputation.fill(values, names)


class _Enriching(BaseModelRouter):
    """What the two enrichment routers have in common: the arguments, and the lookup before the models."""

    def __init__(
        self,
        context: GraphContext | None = None,
        name: str | None = None,
        routes: Mapping[str, Route] | None = None,
        feature_vector_uri: str | None = None,
        impute_policy: Mapping[str, Any] | None = None,
        feature_source: Any = None,
        features: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(context, name, routes, **kwargs)
        refuse_unknown(self, self._kwargs)
        if feature_source is None:
            asked = f"feature_vector_uri={feature_vector_uri!r} names a feature store's vector; " * bool(
                feature_vector_uri
            )
            raise GraphError(
                f"{self.name}: {asked}{type(self).__name__} looks features up in feature_source: a function, an "
                "object with get(entities), a DictSource or DataFrameSource, or the name ('module:name') of one"
            )
        self.feature_vector_uri = feature_vector_uri
        source = as_source(feature_source, self.name)
        self.enricher = Enricher(self.name, source, impute_policy, features, self.inputs_key)
        self._lookup = self.enricher.call
        if self.enricher.is_async:
            self.parallel = True

    def post_init(self, mode: str = "sync", **kwargs: Any) -> None:
        """Look up the statistics that the impute policy names."""
        super().post_init(mode, **kwargs)
        self.enricher.prepare()

    async def handle(self, event: Event) -> Event:
        """The answer of the models to the enriched request."""
        if event.method != "GET":
            event = await self._lookup.run(event, event._run)
        return await super().handle(event)


class EnrichmentModelRouter(_Enriching, ModelRouter):
    """A `ModelRouter` whose requests name entities; the models get their features.

    A value that the source has not is filled by ``impute_policy``, else handed on as it is; an entity that the
    source has not is filled as a whole, else refused with 422. The caller's body is not changed.

    Args:
        feature_source: an object with ``get(entities)`` (see `FeatureSource`), a function, or the ``module:name`` of
            one. It may block, and it may be a coroutine function.
        impute_policy: by feature, or ``*`` for the others, a constant or ``$mean``, ``$max``, ``$min``, ``$std`` or
            ``$count`` of the source's statistics: ``{"*": "$mean", "age": 33}``. Features that have no statistics
            are not filled by ``*``.
        features: the names of the features, in order, where the source does not tell them.
        feature_vector_uri: taken so that existing code says clearly that it needs a ``feature_source``.
        **kwargs: arguments of `ModelRouter`.
    """


class EnrichmentVotingEnsemble(_Enriching, VotingEnsemble):
    """A `VotingEnsemble` whose requests name entities; arguments as for `EnrichmentModelRouter`, looked up once."""


__all__ = ["EnrichmentModelRouter", "EnrichmentVotingEnsemble", "Enricher"]
