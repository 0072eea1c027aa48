"""Puts the pieces of tool calls from a stream together, in the form that whole answers have: pure.

A piece names its call by `index`. The first piece brings id, type and name. The arguments come a little at a time. A
value that does not have the form of pieces raises one of chunk.SHAPE_ERRORS.
"""

from __future__ import annotations

from typing import Any

from .pieces import PIECE, grow, joined

NAMES = ("tool_calls", "function_call")


def add(message: dict[str, Any], name: str, value: Any) -> int:
    """Adds the pieces of one chunk to a message. name: one of NAMES. Returns about how many bytes that adds."""
    if name == "function_call":
        message[name] = message[name] if isinstance(message.get(name), dict) else {}
        return _extend(message[name], value)
    calls = message[name] = message[name] if isinstance(message.get(name), dict) else {}
    more = 0
    for piece in value:
        index = piece.get("index")
        if index is None:  # some engines leave it out; with them a piece with an id begins a call
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


def finished(message: dict[str, Any], *, keep_blank: bool) -> dict[str, Any]:
    """Returns the complete message: its calls are a list, and blank content beside them is null.

    keep_blank: blank content stays, as in vLLM's answers to requests that force a call.
    """
    message = joined(message)
    if isinstance(message.get("function_call"), dict):
        message["function_call"] = joined(message["function_call"])
    calls = message.get("tool_calls")
    if not calls:
        return message
    message["tool_calls"] = [_finished_call(call) for index in sorted(calls) for call in calls[index]]
    content = message.get("content")
    if not keep_blank and isinstance(content, str) and not content.strip():
        message["content"] = None
    return message


def _begins_another(piece: dict[str, Any], call: dict[str, Any]) -> bool:
    """Returns whether a piece begins another call than the one with the same index.

    Some engines give all their calls the index 0, each with its own id and name.
    """
    if not (piece.get("id") and call["id"] and piece["id"] != call["id"]):
        return False
    return all(isinstance(held := part.get("function"), dict) and held.get("name") for part in (piece, call))


def _extend(held: dict[str, Any], piece: dict[str, Any]) -> int:
    return sum(grow(held, key, value) for key, value in piece.items() if value is not None)


def _finished_call(call: dict[str, Any]) -> dict[str, Any]:
    call = {key: joined(value) if isinstance(value, dict) else value for key, value in call.items()}
    if call["type"] == "function":
        call["function"] = {"name": "", "arguments": "", **call.get("function", {})}
    return call
