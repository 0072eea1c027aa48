"""Makes up log probabilities in vLLM's two shapes from the hash state. The chosen token is always the likeliest."""

from __future__ import annotations

from typing import Any

from .generate import INDEX_MASK, NEXT
from .vocabulary import PIECES, SPECIAL


def ranked(state: int, token: int, count: int) -> list[tuple[int, float]]:
    """Returns the chosen token and `count - 1` others, with falling log probabilities."""
    first = -((state >> 20) & 0x3FF) / 2048
    ranks = [(token, first)]
    table = NEXT[0]
    at = state >> 30
    while len(ranks) < count:
        at += 7
        other = table[at & INDEX_MASK]
        if all(other != seen for seen, _ in ranks):
            ranks.append((other, first - 0.75 * len(ranks) - 1.0))
    return ranks


def token_text(token: int) -> str:
    """Returns one token's text, which is empty for a part of a character."""
    return "" if token in SPECIAL else PIECES[token].decode("utf-8", "ignore")


def _chat_entry(token: int, logprob: float) -> dict[str, Any]:
    text = token_text(token)
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def chat(states: list[int], ids: list[int], top: int) -> dict[str, Any]:
    """Returns the `logprobs` of a chat choice."""
    content = []
    for state, token in zip(states, ids, strict=True):
        ranks = ranked(state, token, max(1, top))
        entry = _chat_entry(*ranks[0])
        entry["top_logprobs"] = [_chat_entry(*rank) for rank in ranks[: max(0, top)]]
        content.append(entry)
    return {"content": content}


def prompt(ids: list[int], top: int) -> list[dict[str, Any] | None]:
    """Returns `prompt_logprobs`: for each token but the first, its own log probability and those of the likeliest."""
    told: list[dict[str, Any] | None] = [None]
    for token in ids[1:]:
        ranks = ranked(_state(token), token, max(1, top))
        told.append(
            {
                str(other): {"logprob": value, "rank": rank, "decoded_token": token_text(other)}
                for rank, (other, value) in enumerate(ranks, 1)
            }
        )
    return told


def _state(token: int) -> int:
    """Returns a hash state for a token of a prompt."""
    return (token * 0x9E3779B9) << 20


def completion(states: list[int], ids: list[int], top: int, offset: int, prompt: list[int]) -> dict[str, Any]:
    """Returns the `logprobs` of a completion choice. `prompt` is echoed before it, and its first token has none."""
    offsets: list[int] = []
    values: list[float | None] = []
    tokens: list[str] = []
    tops: list[dict[str, float] | None] = []
    for position, token in enumerate([*prompt, *ids]):
        text = token_text(token)
        offsets.append(offset)
        offset += len(text)
        tokens.append(text)
        if prompt and position == 0:
            values.append(None)
            tops.append(None)
            continue
        state = states[position - len(prompt)] if position >= len(prompt) else _state(token)
        ranks = ranked(state, token, max(1, top))
        values.append(ranks[0][1])
        tops.append({token_text(t): p for t, p in ranks})
    return {"text_offset": offsets, "token_logprobs": values, "tokens": tokens, "top_logprobs": tops}
