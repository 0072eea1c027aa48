"""The paths of an engine's API at which the gateway asks, and what the gateway has to know of each."""

from __future__ import annotations

from typing import NamedTuple


class Route(NamedTuple):
    """One path of an engine's API.

    holds: the name of the list in which a whole answer has its parts. unserved: what the client is told where the
    engine answers 404. Without it, a 404 means that the model is not loaded.
    """

    path: str
    holds: str = "choices"
    unserved: str | None = None


CHAT = Route("/v1/chat/completions")
COMPLETIONS = Route("/v1/completions")
EMBEDDINGS = Route("/v1/embeddings", holds="data", unserved="This model does not serve embeddings.")
