"""Gives a request that is broken off a span of its engine, because vLLM makes one only of what it ends by itself.

These are the requests that went on elsewhere: their connection broke, their engine stalled, or its replica is drained.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_log = logging.getLogger("cloudach.traces")

Tell = Callable[[int, dict[str, Any], Mapping[str, str] | None], None]
"""Makes a span of its beginning in nanoseconds since 1970, its attributes, and the request's headers of tracing."""

_HEADERS = "cloudach_trace_headers"


def tell_of_aborted(processor: Any, tell: Tell, clock: Callable[[], float] = time.time) -> None:
    """Changes vLLM's OutputProcessor, so that each request that is aborted is told once."""
    add, abort = processor.add_request, processor.abort_requests

    def add_request(request: Any, *rest: Any, **named: Any) -> None:
        add(request, *rest, **named)
        state = processor.request_states.get(request.request_id)
        if state is not None:  # vLLM gets the headers back from the engine's process, but only at a request's own end
            setattr(state, _HEADERS, request.trace_headers)

    def abort_requests(request_ids: Iterable[str], *rest: Any, **named: Any) -> list[str]:
        running = dict(processor.request_states)
        stopped: list[str] = abort(request_ids, *rest, **named)
        for state in filter(None, map(running.get, stopped)):
            if not hasattr(state, _HEADERS):
                continue  # the choices of a request are aborted in a call within that of their request
            headers = getattr(state, _HEADERS)
            delattr(state, _HEADERS)
            try:
                tell(int(state.stats.arrival_time * 1e9), attributes(state, clock()), headers)
            except Exception as problem:  # a span that cannot be made must not keep an engine from stopping
                _log.warning("no span of an aborted request: %s", type(problem).__name__)
        return stopped

    processor.add_request, processor.abort_requests = add_request, abort_requests


def attributes(state: Any, ended_at: float) -> dict[str, Any]:
    """Returns what vLLM's own span would tell, as far as it is known. `state` is its RequestState."""
    stats = state.stats
    known: dict[str, Any] = {
        "gen_ai.request.id": state.external_req_id,
        "gen_ai.usage.prompt_tokens": state.prompt_len,
        "gen_ai.usage.completion_tokens": stats.num_generation_tokens,
        "gen_ai.latency.e2e": ended_at - stats.arrival_time,
        "gen_ai.response.finish_reasons": ["abort"],
    }
    if stats.scheduled_ts:
        known["gen_ai.latency.time_in_queue"] = stats.scheduled_ts - stats.queued_ts
    if stats.first_token_ts:
        known |= {
            "gen_ai.latency.time_to_first_token": stats.first_token_latency,
            "gen_ai.latency.time_in_model_prefill": stats.first_token_ts - stats.scheduled_ts,
            "gen_ai.latency.time_in_model_decode": stats.last_token_ts - stats.first_token_ts,
            "gen_ai.latency.time_in_model_inference": stats.last_token_ts - stats.scheduled_ts,
        }
    asked = {
        "top_p": state.top_p,
        "max_tokens": state.max_tokens_param,
        "temperature": state.temperature,
        "n": state.n,
    }
    return known | {f"gen_ai.request.{name}": value for name, value in asked.items() if value}
