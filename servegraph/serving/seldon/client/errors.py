"""What the client raises: wrong arguments, and answers that do not hold what was asked of them."""

from __future__ import annotations

from servegraph.errors import ServegraphError


class SeldonClientException(ServegraphError):  # noqa: N818 - the name that callers import
    """A call cannot be made as it was asked for, or its answer does not hold what is wanted of it.

    A call that was made and failed raises nothing: its result has ``success`` false and the reason in ``msg``.
    """

    status_code = 400
