"""Which predictor of a deployment a request or a feedback is for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

from servegraph.errors import RequestError, closest
from servegraph.graph.events import Event
from servegraph.serving.seldon.message import Feedback, Meta
from servegraph.serving.seldon.predictors import SeldonPredictor

PREDICTOR_HEADER: Final = "seldon-predictor"
REMEMBERED: Final = 10_000
"""So many answers at least are remembered, with the predictors that gave them."""


class Split:
    """Chooses among predictors: by a header, by what an answer tells of its way, by their shares of the traffic.

    Args:
        predictors: those that answer, by name.
        draw: gives random numbers from 0 to 1.
        remembered: how many answers are remembered at least.
    """

    def __init__(
        self, predictors: Mapping[str, SeldonPredictor], draw: Callable[[], float], remembered: int = REMEMBERED
    ) -> None:
        self._predictors = predictors
        self._all = tuple(predictors.values())
        self._draw = draw
        self.only = self._all[0] if len(self._all) == 1 else None
        """The predictor, where there is one alone."""
        self._most = remembered
        self._answered: dict[str, SeldonPredictor] = {}
        self._earlier: dict[str, SeldonPredictor] = {}

    def named(self, event: Event) -> SeldonPredictor | None:
        """The predictor that a header names.

        Raises:
            RequestError: there is none of that name.
        """
        name = event.headers.get(PREDICTOR_HEADER)
        if name is None:
            return None
        if name not in self._predictors:
            raise RequestError(f"there is no predictor {name[:80]!r}; {closest(name[:80], self._predictors)}")
        return self._predictors[name]

    def for_request(self, event: Event) -> SeldonPredictor:
        """The predictor that a header names, else one by its share of the traffic.

        Raises:
            RequestError: the header names none.
        """
        return self.named(event) or self.only or self._by_share(self._all)

    def remember(self, puid: str, predictor: SeldonPredictor) -> None:
        """Keep in mind which predictor answered a request, where there are several."""
        if self.only is not None:
            return
        # Two generations: no lock, as other threads may be in here, and no search for the oldest.
        if len(self._answered) >= self._most:
            self._earlier, self._answered = self._answered, {}
        self._answered[puid] = predictor

    def for_feedback(self, feedback: Feedback, event: Event, puid: str) -> SeldonPredictor:
        """The predictor that gave an answer, as far as it can be told.

        A header tells it, then the nodes and images in the answer's meta where they are those of one predictor, then
        the request's id. Among predictors that are still alike the shares of the traffic decide.

        Args:
            feedback: what is said of the answer.
            event: the request that brings it.
            puid: the id of the request that was answered.

        Raises:
            RequestError: the header names no predictor.
        """
        named = self.named(event) or self.only
        if named is not None:
            return named
        likely = self._likely(feedback.response.meta)
        if len(likely) == 1:
            return likely[0]
        known = self._answered.get(puid) or self._earlier.get(puid)
        return known if known in likely else self._by_share(likely)

    def _likely(self, meta: Meta) -> tuple[SeldonPredictor, ...]:
        """The predictors that an answer with this meta may come from; all where it tells nothing."""
        seen = {*meta.request_path, *meta.routing}
        by_nodes = tuple(p for p in self._all if seen <= set(p.units))
        by_images = tuple(p for p in by_nodes if _has_images(p, meta.request_path))
        return by_images or by_nodes or self._all

    def _by_share(self, predictors: Collection[SeldonPredictor]) -> SeldonPredictor:
        total = sum(p.traffic for p in predictors)
        drawn = self._draw() * (total or len(predictors))
        for predictor in predictors:
            drawn -= predictor.traffic if total else 1
            if drawn < 0:
                return predictor
        return self._all[-1]


def _has_images(predictor: SeldonPredictor, path: Mapping[str, str]) -> bool:
    units = predictor.units
    return all(name in units and units[name].node.image == image for name, image in path.items())
