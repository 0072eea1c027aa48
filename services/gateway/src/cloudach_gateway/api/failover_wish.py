"""The header with which a request says what it wants of failover."""

from __future__ import annotations

from enum import Enum

from starlette.types import Scope

from ..client.request_headers import header
from ..errors import InvalidRequest

HEADER = "x-cloudach-failover"


class FailoverWish(Enum):
    ON = "on"  # the default
    OFF = "off"  # the error frame instead
    REPORT = "report"  # on, and the last chunk names each failover


def failover_wish(scope: Scope) -> FailoverWish:
    """Raises InvalidRequest."""
    value = header(scope, HEADER.encode())
    if value is None:
        return FailoverWish.ON
    try:
        return FailoverWish(value.decode("latin-1").strip().lower())
    except ValueError:
        raise InvalidRequest(
            f"Invalid header '{HEADER}': it is one of on, off and report.", param=HEADER, code="invalid_value"
        ) from None
