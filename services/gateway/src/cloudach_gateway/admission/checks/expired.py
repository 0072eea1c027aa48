"""The API key has not expired."""

import time

from ...errors import InvalidApiKey
from ..check import Alone, Check, Refused


def _alone(seen: Alone) -> Refused | None:
    until = seen.record.expires_at_ms
    return Refused("expired") if until is not None and time.time() * 1000 >= until else None


EXPIRED = Check(
    name="expired",
    of_key=True,
    lua="""
local expires = tonumber(RECORD.expires_at_ms)
if expires and now >= expires * 1000 then return answer('expired') end
""",
    refusals={"expired": lambda _: InvalidApiKey("This API key has expired.")},
    alone=_alone,
)
