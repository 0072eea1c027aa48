"""How many tokens a request can have used at the very most, whatever an engine says: pure."""

from __future__ import annotations

from typing import NamedTuple

from openai_wire.requests import ChatRequest, CompletionRequest, EmbeddingRequest

_LONGEST_CONTEXT = 10_000_000  # tokens, where it is not known: no model has a longer one
_MOST = 2**40  # of one request: far from where numbers in Redis lose their last digits
_OF_A_TEMPLATE = 16_384  # tokens that a chat template adds, at most


class Bounds(NamedTuple):
    """prompt, answer: tokens of all prompts and of all answers."""

    prompt: int = _MOST
    answer: int = _MOST


UNBOUNDED = Bounds()


def bounds(
    asked: ChatRequest | CompletionRequest | EmbeddingRequest, *, size: int, max_model_len: int | None
) -> Bounds:
    """size: the body's bytes. A token of text has one of them at least; twice that is for what a template repeats, as
    it does with tools. Images and the like have more tokens than bytes."""
    longest = max_model_len or _LONGEST_CONTEXT
    prompt = longest * getattr(asked, "prompts", 1)
    if isinstance(asked, EmbeddingRequest):
        return Bounds(2 * size + _OF_A_TEMPLATE, 0)
    if not (isinstance(asked, ChatRequest) and any(isinstance(message.content, list) for message in asked.messages)):
        prompt = min(prompt, 2 * size + _OF_A_TEMPLATE)
    limit = longest if asked.answer_limit is None else max(1, asked.answer_limit)  # vLLM generates one token for 0
    answers = asked.choices
    if isinstance(asked, CompletionRequest):
        answers = max(answers, (asked.best_of or 1) * asked.prompts)
    return Bounds(min(prompt, _MOST), min(limit * answers, _MOST))
