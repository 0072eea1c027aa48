"""Bounds the tokens that a request can have used, whatever an engine states. Pure."""

from __future__ import annotations

from typing import NamedTuple

_LONGEST_CONTEXT = 10_000_000  # tokens, for a model whose context is not known; no model has a longer one
_MOST = 2**40  # tokens of one request; Redis counts much larger numbers without losing their last digits
_MOST_TEMPLATE = 16_384  # tokens that a chat template adds


class Bounds(NamedTuple):
    """`prompt` bounds the tokens of all prompts of a request together, `answer` those of all its answers."""

    prompt: int = _MOST
    answer: int = _MOST

    @classmethod
    def within(cls, prompt: int, answer: int) -> Bounds:
        """Returns these bounds, made smaller where they are beyond all reason."""
        return cls(min(prompt, _MOST), min(answer, _MOST))


UNBOUNDED = Bounds()


def longest_context(max_model_len: int | None) -> int:
    return max_model_len or _LONGEST_CONTEXT


def most_of_text(size: int) -> int:
    """Returns the most tokens that a prompt of text alone can have, when the request's body has `size` bytes.

    A token of text takes at least one byte of the body. The bound is twice the bytes, because templates repeat parts of
    the body, as they do with tools. What a template adds of its own comes on top. Images and other media may have more
    tokens than bytes, so the body does not bound them.
    """
    return 2 * size + _MOST_TEMPLATE
