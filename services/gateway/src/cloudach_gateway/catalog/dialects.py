"""What engines of each dialect can do beyond OpenAI's API. A Model's settings name the dialect."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dialect:
    """token_ids: its streams name the ids of their tokens and state usage on each chunk, when asked.
    streams_calls: it tells of each token while it writes a tool call; others may be silent until the call is complete.
    own_fields: its whole answers have all of vLLM's fields, null or not.
    states_context: its list of models says how long each model's context is.
    """

    token_ids: bool
    streams_calls: bool
    own_fields: bool
    states_context: bool


DIALECTS = {
    "vllm": Dialect(token_ids=True, streams_calls=True, own_fields=True, states_context=True),
    "openai": Dialect(token_ids=False, streams_calls=False, own_fields=False, states_context=False),
}
