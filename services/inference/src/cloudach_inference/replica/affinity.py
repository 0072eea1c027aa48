"""This module decides which replica has seen the beginning of a request before. It needs no Ray.

Prompts are cut into blocks. As in an engine's prefix cache, a block is known together with all that stands before it.
The request goes to the replica that was given the longest known beginning. Of several it is the one with the fewest
requests of late. If that one has had more than its share, or no block is known, the replica with the fewest of all gets
the request.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

BLOCK_CHARACTERS = 256
BLOCK_TOKENS = 64

_BLOCKS = 200_000  # remembered in all, some 60 MB
_HALF_S = 10.0  # a request counts half after so long: engines do not tell when one has ended
_SHARE = 1.5  # of what the replica has had that has had least
_ALWAYS = 4.0  # requests more than it that nobody minds


def blocks(body: Mapping[str, Any]) -> Iterator[int]:
    """Yields a number for each whole block of a request's prompt. Of several prompts the first counts.

    Requests with different `cache_salt` share no cache, so their blocks have different numbers.
    """
    state = hash((body.get("model"), body.get("cache_salt")))
    for piece in _pieces(body):
        state = hash((state, piece))
        yield state


def _pieces(body: Mapping[str, Any]) -> Iterator[object]:
    messages, prompt = body.get("messages"), body.get("prompt")
    if isinstance(messages, list):
        yield from _cut("".join(map(_said, messages)))
        return
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], list | str):
        prompt = prompt[0]
    if isinstance(prompt, str):
        yield from _cut(prompt)
    elif isinstance(prompt, list):
        for end in range(BLOCK_TOKENS, len(prompt) + 1, BLOCK_TOKENS):
            yield str(prompt[end - BLOCK_TOKENS : end])


def _cut(text: str) -> Iterator[str]:
    for end in range(BLOCK_CHARACTERS, len(text) + 1, BLOCK_CHARACTERS):
        yield text[end - BLOCK_CHARACTERS : end]


def _said(message: object) -> str:
    if not isinstance(message, Mapping):
        return ""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return f"\x00{message.get('role')}\x00{content}"


class Affinity:
    """It is the memory of one router. Replicas are any strings."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: OrderedDict[int, frozenset[str]] = OrderedDict()
        """The replicas that a block has come to; the block that was used longest ago first."""
        self._had: dict[str, float] = {}
        self._as_of = clock()

    def keep(self, replicas: Iterable[str]) -> None:
        """Forgets all other replicas, because they have gone and their caches with them."""
        there = set(replicas)
        if self._had.keys() - there:
            self._had = {replica: had for replica, had in self._had.items() if replica in there}
            for block, replicas_of_it in list(self._seen.items()):
                if left := replicas_of_it & there:
                    self._seen[block] = left
                else:
                    del self._seen[block]

    def choose(self, prompt: Sequence[int], replicas: Sequence[str]) -> list[str]:
        """Returns all replicas, the best first. The request counts as given to the first."""
        self._forget()
        had = {replica: self._had.get(replica, 0.0) for replica in replicas}
        order = sorted(replicas, key=lambda replica: had[replica])
        limit = had[order[0]] * _SHARE + _ALWAYS
        know_most = self._know_most(prompt, frozenset(replicas))
        best = next((replica for replica in order if replica in know_most), None)
        if best is not None and had[best] <= limit:
            order.remove(best)
            order.insert(0, best)
        self._take(prompt, order[0])
        return order

    def _know_most(self, prompt: Sequence[int], replicas: frozenset[str]) -> frozenset[str]:
        """Returns the replicas that have seen the longest beginning; none if no replica has seen any."""
        found: frozenset[str] = frozenset()
        for block in prompt:
            holders = self._seen.get(block, frozenset()) & (found or replicas)
            if not holders:
                break
            found = holders
        return found

    def _take(self, prompt: Sequence[int], replica: str) -> None:
        self._had[replica] = self._had.get(replica, 0.0) + 1.0
        for block in prompt:
            self._seen[block] = self._seen.get(block, frozenset()) | {replica}
            self._seen.move_to_end(block)
        while len(self._seen) > _BLOCKS:
            self._seen.popitem(last=False)

    def _forget(self) -> None:
        now = self._clock()
        fade = 0.5 ** ((now - self._as_of) / _HALF_S)
        self._had = {replica: had * fade for replica, had in self._had.items()}
        self._as_of = now
