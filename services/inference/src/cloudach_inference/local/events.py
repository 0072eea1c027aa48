"""The cluster's process tells its supervisor events: one JSON object a line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Event:
    kind: Literal["step", "deployed", "failed"]
    text: str = ""  # step: what happens now; failed: why
    app: str = ""  # deployed, failed: its slug


def encode(event: Event) -> str:
    return json.dumps(asdict(event)) + "\n"


def decode(line: str) -> Event | None:
    """Returns None for a line that is no event."""
    try:
        return Event(**json.loads(line))
    except (ValueError, TypeError):
        return None
