"""Errors as clients read them: as a whole response, and as the last event of a stream."""

from __future__ import annotations

import orjson
import pytest
from cloudach_gateway.errors import GatewayError, InvalidRequest, ModelNotReady, Overloaded, RateLimited


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("No.", param="messages[0]", code="invalid_value"),
        ModelNotReady("Asleep.", retry_after_s=3),
        RateLimited("Too many.", kind="tokens", retry_after_s=3),
        Overloaded("Restarting.", retry_after_s=1),
    ],
)
def test_a_frame_says_what_the_body_says(error: GatewayError) -> None:
    frame = error.frame()
    assert frame.startswith(b"data: ")
    assert frame.endswith(b"\n\n")
    said = orjson.loads(frame.removeprefix(b"data: "))
    assert said == orjson.loads(error.body())
    assert said["error"]["param"] == error.param
