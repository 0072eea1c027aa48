"""The paths at which models are asked. A new endpoint is a module of its own and a line here."""

from __future__ import annotations

from .chat import CHAT
from .completions import COMPLETIONS
from .embeddings import EMBEDDINGS
from .endpoint import Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (CHAT, COMPLETIONS, EMBEDDINGS)
