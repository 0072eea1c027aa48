"""Makes the span that vLLM makes of a request: `llm_request`, below the span that the request's `traceparent` names.

Name, kind and attributes are those of vLLM 0.29, in `OutputProcessor.do_tracing` of vllm/v1/engine/output_processor.py.
Each choice of a request has a span. What was broken off gets one as well, as `cloudach_inference.replica.aborted` adds
it to vLLM; an engine that dies has none. Pure but for the ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cloudach_service.traces import w3c
from cloudach_service.traces.sampling import Sampling
from cloudach_service.traces.spans import Kind, Span, Value

from .answer import Answer

NAME = "llm_request"


class Times(NamedTuple):
    """Seconds since 1970. first_token: None if there was none."""

    began: float
    first_token: float | None
    ended: float


def llm_requests(answer: Answer, traceparent: str | None, times: Times, sampling: Sampling) -> list[Span]:
    """Returns a span for each choice, and none if the trace is not sampled."""
    parent = None if traceparent is None else w3c.parse(traceparent.encode("latin-1"))
    trace_id = w3c.new_trace_id() if parent is None else parent.trace_id
    if not sampling.samples(trace_id, parent):
        return []
    return [
        Span(
            trace_id,
            w3c.new_span_id(),
            0 if parent is None else parent.span_id,
            NAME,
            Kind.SERVER,
            round(times.began * 1e9),
            round(times.ended * 1e9),
            {**_of_choice(answer, index), **_latencies(times)},
            remote_parent=parent is not None,
        )
        for index in range(len(answer.sequences))
    ]


def _of_choice(answer: Answer, index: int) -> dict[str, Value]:
    ask, sequence = answer.ask, answer.sequences[index]
    known: dict[str, Value] = {
        "gen_ai.request.id": answer.id,
        "gen_ai.request.n": 1,  # in vLLM each choice is a request of its own
        "gen_ai.request.max_tokens": ask.sampling.max_tokens,
        "gen_ai.request.top_p": ask.top_p,
        "gen_ai.usage.prompt_tokens": len(ask.prompts[index // ask.n]),
        "gen_ai.usage.completion_tokens": sequence.count,
    }
    if ask.temperature:
        known["gen_ai.request.temperature"] = ask.temperature
    if not sequence.finished:
        known["gen_ai.response.finish_reasons"] = _ABORTED
    return known


_ABORTED: Sequence[str] = ("abort",)


def _latencies(times: Times) -> dict[str, Value]:
    known: dict[str, Value] = {"gen_ai.latency.e2e": times.ended - times.began}
    if times.first_token is not None:
        known |= {
            "gen_ai.latency.time_in_queue": 0.0,  # nothing waits here
            "gen_ai.latency.time_to_first_token": times.first_token - times.began,
            "gen_ai.latency.time_in_model_prefill": times.first_token - times.began,
            "gen_ai.latency.time_in_model_decode": times.ended - times.first_token,
            "gen_ai.latency.time_in_model_inference": times.ended - times.began,
        }
    return known
