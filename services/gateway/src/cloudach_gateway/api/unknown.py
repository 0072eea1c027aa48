"""Names the path that a client may have meant when the gateway does not serve the path that it asked for. No I/O."""

from __future__ import annotations

_CHAT = "POST /v1/chat/completions"
# The order matters: `/chat/completions` also ends with `/completions`.
_ROUTE_OF_ENDING = {
    "/chat/completions": _CHAT,
    "/completions": "POST /v1/completions",
    "/embeddings": "POST /v1/embeddings",
    "/models": "GET /v1/models",
}
_MOST_CHARACTERS = 200


def unknown_path_message(path: str) -> str:
    """Returns the message for a request whose path has no route; it names the path that may have been meant."""
    shown = path if len(path) <= _MOST_CHARACTERS else path[:_MOST_CHARACTERS] + "…"
    for ending, route in _ROUTE_OF_ENDING.items():
        if path.rstrip("/").endswith(ending):
            return f"{shown} is not served here; what you look for is at {route}."
    return f"{shown} is not served here; chat is at {_CHAT}."
