"""Estimates what a regular expression or a grammar costs to compile. No I/O.

For every place in an answer where many characters may stand, a compiler goes through the whole vocabulary. That takes
about 11 ms of a CPU for a vocabulary of 49,000 tokens. `[a-z]{1,100}` has a hundred such places, `"yes"` has none.
"""

from __future__ import annotations

import re

MOST = 128
"""A compiler writes out this many copies of one repetition, and counts the rest."""

_TOKEN = re.compile(
    r"""
    (?P<text>"(?:[^"\\\n]|\\.)*")          # a grammar's string; in a regular expression nothing special
  | (?P<wide>\[\^?\]?(?:[^\]\\]|\\.)*\]?   # a class of characters; without an end it takes the rest
    |\.|\\[DSWPpdswX])
  | (?P<open>\()
  | (?P<close>\))
  | \{(?P<least>\d*)(?P<comma>,)?(?P<most>\d*)\}
  | (?P<other>\\.|[^\\.\[(){"]+|.)
    """,
    re.VERBOSE | re.DOTALL,
)


def places(text: str, *, grammar: bool = False) -> int:
    """Counts the places for many characters that are there once repetitions are written out. Never raises."""
    groups = [0]  # what each open group has before its last element
    last = 0  # what the last element has
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind == "text" and not grammar:
            groups[-1] += last
            last = places(match[0][1:-1])
        elif kind == "open":
            groups[-1] += last
            groups.append(0)
            last = 0
        elif kind == "close":
            inner = groups.pop() + last
            if not groups:
                groups.append(0)
            last = inner
        elif kind in ("wide", "text", "other"):
            groups[-1] += last
            last = int(kind == "wide")
        else:
            last *= min(MOST, max(1, int((match["most"] or match["least"] or "1")[:9])))
    return sum(groups) + last
