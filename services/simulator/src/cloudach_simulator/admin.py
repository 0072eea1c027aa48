"""The simulator's own routes under /sim/. They show and set its counts, its faults and its pace, and need no key.

GET  /sim/stats               totals
GET  /sim/requests?limit=&id= the last requests, newest first
GET  /sim/requests/{id}       the last request with that x-request-id
GET  /sim/faults              what is armed
POST /sim/faults              {"fault": "die@5", "times": 1, "probability": 1.0, "user": "only requests with this user"}
POST /sim/strike              {"fault": "end"}: this fault, now, for all streams that have sent a token
POST /sim/wake                {"steps": 1}: stalled requests go on by so many steps, or (without a number) for good
DELETE /sim/faults            disarm all
GET|POST /sim/config          {"rate": 50, "ttft_ms": 0}
POST /sim/reset               forget faults, counts, and the engine's death
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

import orjson

from .faults import CUTS, NOTHING, BadFault, parse

if TYPE_CHECKING:
    from .app import Simulator
    from .run import Sink

_JSON = b"application/json"


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        raise BadFault(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadFault("not an object")
    return value


def _arm(simulator: Simulator, body: bytes) -> None:
    order = _object(body)
    fault, times, probability = order.get("fault"), order.get("times"), order.get("probability", 1.0)
    if not isinstance(fault, str) or not (times is None or isinstance(times, int)):
        raise BadFault("fault is a string and times a whole number")
    user = order.get("user")
    if not (user is None or isinstance(user, str)):
        raise BadFault("user is a string")
    if not isinstance(probability, int | float) or not 0 <= probability <= 1:
        raise BadFault("probability lies between 0 and 1")
    simulator.arsenal.arm(fault, times, float(probability), user)


def _strike(simulator: Simulator, body: bytes) -> int:
    fault = _object(body).get("fault")
    plan = parse(fault) if isinstance(fault, str) else NOTHING
    if plan.cut is None:
        raise BadFault(f"fault is one of {', '.join(sorted(CUTS))}")
    return simulator.strike(plan)


def _wake(simulator: Simulator, body: bytes) -> int:
    steps = _object(body).get("steps")
    if not (steps is None or (isinstance(steps, int) and steps > 0)):
        raise BadFault("steps is a whole number above 0")
    return simulator.wake(steps)


def _configure(simulator: Simulator, body: bytes) -> None:
    for name, value in _object(body).items():
        if name not in ("rate", "ttft_ms") or not isinstance(value, int | float) or value < 0:
            raise BadFault("rate and ttft_ms can be set, to numbers of 0 or more")
        setattr(simulator.config, name, float(value))


def handle(simulator: Simulator, method: str, path: str, query: str, body: bytes, sink: Sink) -> None:
    """Answers a request to /sim/…. Raises BadFault for a fault that is not known."""
    ledger = simulator.ledger
    status = 200
    answer: dict[str, Any]
    match method, path:
        case "GET", "/sim/stats":
            answer = {**ledger.stats(), "dead": simulator.dead}
        case "GET", "/sim/requests":
            asked = parse_qs(query)
            limit = asked.get("limit", ["100"])[0]
            if not limit.isdigit():
                raise BadFault("limit is not a number")
            answer = {"data": ledger.requests(int(limit), asked["id"][0] if "id" in asked else None)}
        case "GET", _ if path.startswith("/sim/requests/"):
            found = ledger.requests(1, unquote(path.removeprefix("/sim/requests/")))
            status, answer = (200, found[0]) if found else (404, {"detail": "Not Found"})
        case "POST", "/sim/faults":
            _arm(simulator, body)
            answer = {"data": simulator.arsenal.listing()}
        case "POST", "/sim/strike":
            answer = {"struck": _strike(simulator, body)}
        case "POST", "/sim/wake":
            answer = {"woken": _wake(simulator, body)}
        case "GET", "/sim/faults":
            answer = {"data": simulator.arsenal.listing()}
        case "DELETE", "/sim/faults":
            simulator.arsenal.clear()
            answer = {"data": []}
        case (("GET" | "POST"), "/sim/config"):
            if method == "POST":
                _configure(simulator, body)
            answer = {"rate": simulator.config.rate, "ttft_ms": simulator.config.ttft_ms}
        case "POST", "/sim/reset":
            simulator.reset()
            answer = {}
        case _:
            status, answer = 404, {"detail": "Not Found"}
    sink.reply(status, _JSON, orjson.dumps(answer))
