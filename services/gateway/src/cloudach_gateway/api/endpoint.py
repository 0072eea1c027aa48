"""An endpoint says what one path of the API means. `endpoints` lists them, and `pipeline` serves them all alike.

An endpoint is asked once for each request, and for each stream, never for each token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ..catalog import ServedModel
from ..client.dialect import OPENAI, ClientDialect
from ..proxy.answers import Answers
from ..proxy.engine.routes import Route
from ..proxy.stream.bounds import Bounds
from ..settings import Settings


class ToEngine(NamedTuple):
    """A request as its engine gets it. The fields are those of the body.

    answers: what the client gets of the engine's events; None where the engine is asked for its answer in one piece.
    """

    route: Route
    body: bytes
    fields: dict[str, Any]
    answers: Answers | None


class Asked(Protocol):
    """One request, parsed. A BadField that a method raises becomes a 400."""

    @property
    def model(self) -> str:
        """The model's name as the client used it."""

    @property
    def stream(self) -> bool:
        """True if the client wants events."""

    @property
    def fields(self) -> dict[str, Any]:
        """The fields that the engine gets. What is set here by others goes to the engine as well."""

    @property
    def prompts(self) -> int:
        """The number of prompts in the request."""

    @property
    def prompt_tokens(self) -> int:
        """About how many tokens all prompts have; the engine's own count replaces it afterwards."""

    @property
    def guided(self) -> bool:
        """True if a schema, a grammar or a tool guides the answer."""

    def check(self, model: ServedModel, settings: Settings) -> None:
        """Raises BadField for what may not be asked of this model."""

    def tokens(self, model: ServedModel, *, default_answer: int) -> int:
        """Returns the tokens to reserve, about the most that the request may use. default_answer counts where the
        request names no limit."""

    def bounds(self, *, size: int, max_model_len: int | None) -> Bounds:
        """Returns the most that the request can have used, whatever an engine says. size: the body's bytes."""

    def to_engine(self, model: ServedModel) -> ToEngine:
        """Returns the engine's request; called again if a woken model has another name. Raises BadField."""

    def for_client(self, answer: dict[str, Any]) -> bytes:
        """Returns the client's form of an answer that the engine gave in one piece. Raises BadChunk."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path of the API. `asked` parses a body and raises BadField."""

    path: str
    asked: Callable[[bytes], Asked]
    dialect: ClientDialect = OPENAI

    @property
    def route(self) -> str:
        """The name in metrics, logs and usage records."""
        return self.path.removeprefix("/v1/")
