"""An API's clients put their key in one place, and expect errors and heart-beats in one form: their dialect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from openai_wire.sse import KEEP_ALIVE_FRAME
from starlette.types import Scope

from ..errors import GatewayError
from .request_headers import bearer_key


@dataclass(frozen=True, slots=True)
class ClientDialect:
    """key: finds the API key in a request's head, or raises InvalidApiKey. error_body: a whole response.
    error_frame: the last event of a stream that has begun. heartbeat: what an idle stream carries."""

    key: Callable[[Scope], str]
    error_body: Callable[[GatewayError], bytes]
    error_frame: Callable[[GatewayError], bytes]
    heartbeat: bytes


OPENAI = ClientDialect(
    key=bearer_key, error_body=GatewayError.body, error_frame=GatewayError.frame, heartbeat=KEEP_ALIVE_FRAME
)
