"""The most tokens that a request can have used, whatever an engine states: pure."""

from __future__ import annotations

from typing import NamedTuple

from openai_wire.requests import ChatRequest, CompletionRequest, EmbeddingRequest

_LONGEST_CONTEXT = 10_000_000  # tokens, for a model whose context is not known; no model has a longer one
_MOST = 2**40  # tokens of one request; Redis counts much larger numbers without losing their last digits
_MOST_TEMPLATE = 16_384  # tokens that a chat template adds


class Bounds(NamedTuple):
    """prompt, answer: the most tokens of all prompts and of all answers together."""

    prompt: int = _MOST
    answer: int = _MOST


UNBOUNDED = Bounds()


def bounds(
    asked: ChatRequest | CompletionRequest | EmbeddingRequest, *, size: int, max_model_len: int | None
) -> Bounds:
    """Returns the bounds of a request whose body has `size` bytes.

    A token of text has at least one byte of the body. The bound is twice that, because templates repeat parts of it, as
    they do with tools. Images and other media may have more tokens than bytes, so the body does not bound them.
    """
    longest = max_model_len or _LONGEST_CONTEXT
    prompt = longest * getattr(asked, "prompts", 1)
    if isinstance(asked, EmbeddingRequest):
        return Bounds(2 * size + _MOST_TEMPLATE, 0)
    if not (isinstance(asked, ChatRequest) and any(isinstance(message.content, list) for message in asked.messages)):
        prompt = min(prompt, 2 * size + _MOST_TEMPLATE)
    limit = longest if asked.answer_limit is None else max(1, asked.answer_limit)  # vLLM generates one token for 0
    answers = asked.choices
    if isinstance(asked, CompletionRequest):
        answers = max(answers, (asked.best_of or 1) * asked.prompts)
    return Bounds(min(prompt, _MOST), min(limit * answers, _MOST))
