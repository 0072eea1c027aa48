"""Tool calls put together from the pieces of a stream, in the form that whole answers have: pure.

A piece names its call by `index`. The first one brings id, type and name; the arguments come a little at a time.
What has not the form of pieces raises one of chunk.SHAPE_ERRORS.
"""

from __future__ import annotations

from typing import Any

from .pieces import PIECE, grow, joined

NAMES = ("tool_calls", "function_call")


def take(message: dict[str, Any], name: str, value: Any) -> int:
    """name: one of NAMES. Returns about how many bytes more are held."""
    if name == "function_call":
        message[name] = message[name] if isinstance(message.get(name), dict) else {}
        return _extend(message[name], value)
    calls = message[name] = message[name] if isinstance(message.get(name), dict) else {}
    more = 0
    for piece in value:
        index = piece.get("index")
        if index is None:  # some engines leave it out: a piece with an id begins a call, others go on with the last
            index = len(calls) if piece.get("id") or not calls else next(reversed(calls))
        if not isinstance(index, int):
            raise TypeError("a call's index is no number")
        of_index = calls.setdefault(index, [])
        if not of_index or _begins_another(piece, of_index[-1]):
            of_index.append({"id": None, "type": "function"})
        call = of_index[-1]
        more += PIECE
        for key, said in piece.items():
            if isinstance(said, dict):  # `function`, or what a call of another type has
                more += _extend(call.setdefault(key, {}), said)
            elif key == "id":
                call["id"] = call["id"] or said
            elif key != "index" and said is not None:
                call[key] = said
    return more


def told(message: dict[str, Any], *, keep_blank: bool) -> dict[str, Any]:
    """The message at its end: with a list of calls, and with null for content that is blank beside them.

    keep_blank: leaves such content as it is. vLLM does so where the request forces a call.
    """
    message = joined(message)
    if isinstance(message.get("function_call"), dict):
        message["function_call"] = joined(message["function_call"])
    calls = message.get("tool_calls")
    if not calls:
        return message
    message["tool_calls"] = [_told(call) for index in sorted(calls) for call in calls[index]]
    content = message.get("content")
    if not keep_blank and isinstance(content, str) and not content.strip():
        message["content"] = None
    return message


def _begins_another(piece: dict[str, Any], call: dict[str, Any]) -> bool:
    """Some engines give all their calls the index 0, each with its own id and name."""
    if not (piece.get("id") and call["id"] and piece["id"] != call["id"]):
        return False
    return all(isinstance(held := part.get("function"), dict) and held.get("name") for part in (piece, call))


def _extend(held: dict[str, Any], piece: dict[str, Any]) -> int:
    return sum(grow(held, key, value) for key, value in piece.items() if value is not None)


def _told(call: dict[str, Any]) -> dict[str, Any]:
    call = {key: joined(value) if isinstance(value, dict) else value for key, value in call.items()}
    if call["type"] == "function":
        call["function"] = {"name": "", "arguments": "", **call.get("function", {})}
    return call
