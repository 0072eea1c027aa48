"""Lists what engines of each dialect can do beyond OpenAI's API. A Model's settings name the dialect."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dialect:
    """A dialect says what its engines can do.

    `token_ids`: when asked, its streams name the ids of their tokens and state usage on each chunk. `streams_calls`: it
    tells of each token while it writes a tool call; others may be silent until the call is complete. `own_fields`: its
    whole answers have all of vLLM's fields, null or not. `takes_salt`: a request may name a salt, and only requests
    with the same salt share cached prefixes. `states_context`: its list of models says how long each context is.
    """

    token_ids: bool
    streams_calls: bool
    own_fields: bool
    takes_salt: bool
    states_context: bool


DIALECTS = {
    "vllm": Dialect(token_ids=True, streams_calls=True, own_fields=True, takes_salt=True, states_context=True),
    "openai": Dialect(token_ids=False, streams_calls=False, own_fields=False, takes_salt=False, states_context=False),
}
