"""Where somebody who asked for a route that is not served here wanted to go: pure."""

from __future__ import annotations

CHAT = "POST /v1/chat/completions"
# The longer ones first: an ending of one is an ending of another.
_WAYS = {
    "/chat/completions": CHAT,
    "/completions": "POST /v1/completions",
    "/embeddings": "POST /v1/embeddings",
    "/models": "GET /v1/models",
}
_LONGEST = 200


def told_the_way(path: str) -> str:
    """Returns the message for a request whose path has no route; it names the path that may have been meant."""
    shown = path if len(path) <= _LONGEST else path[:_LONGEST] + "…"
    for ending, way in _WAYS.items():
        if path.rstrip("/").endswith(ending):
            return f"{shown} is not served here; what you look for is at {way}."
    return f"{shown} is not served here; chat is at {CHAT}."
