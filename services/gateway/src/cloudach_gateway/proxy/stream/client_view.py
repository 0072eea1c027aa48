"""The part of an answer that the client asked to see."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class UsageForm(Enum):
    """Where the client wants `usage` in its stream."""

    LAST_CHOICE = "on the last chunk that has a choice"  # without stream_options, as the guide has it
    EXTRA_CHUNK = "a last chunk without choices"  # include_usage: true
    EVERY_CHUNK = "on every chunk"  # continuous_usage_stats: true
    NONE = "nowhere"  # include_usage: false


class ClientView(NamedTuple):
    """The model has the name that the client used. A chat's answer is a message, a completion's a text.

    choices: how many answers all prompts together get. forced_call: the client wants a tool called in any case.
    """

    model: str
    usage: UsageForm = UsageForm.LAST_CHOICE
    token_ids: bool = False
    answers_per_prompt: int = 1
    choices: int = 1
    chat: bool = False
    forced_call: bool = False
