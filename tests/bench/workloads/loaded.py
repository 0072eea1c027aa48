"""As much as one core can take: streams flat out, short streams, long ones, answers that are not streamed."""

from __future__ import annotations

import asyncio

from tests.bench.client import BadAnswer, Client, Tally
from tests.bench.plan import Plan
from tests.bench.results import Figures

from .load import Subject, endless
from .window import Window, measured


async def flat_out(subject: Subject, plan: Plan) -> Figures:
    """Streams as fast as they go: CPU per chunk and chunks/s."""
    window, _ = await _loaded(
        subject, plan, plan.flat_streams, tokens=plan.flat_tokens, stream=True, chunks=plan.least_chunks
    )
    return window.per_chunk()


async def short_streams(subject: Subject, plan: Plan) -> Figures:
    """Streams of one token: CPU per request."""
    window, events = await _loaded(
        subject, plan, plan.requests_at_once, tokens=1, stream=True, requests=plan.least_requests
    )
    return window.per_request(events)


async def long_streams(subject: Subject, plan: Plan) -> Figures:
    """Streams of many tokens, flat out: CPU per request."""
    window, events = await _loaded(
        subject, plan, plan.long_streams, tokens=plan.long_tokens, stream=True, chunks=plan.least_chunks
    )
    return window.per_request(events)


async def whole_answers(subject: Subject, plan: Plan) -> Figures:
    """Short requests that are not streamed: CPU per request."""
    window, _ = await _loaded(
        subject, plan, plan.requests_at_once, tokens=plan.answer_tokens, stream=False, requests=plan.least_requests
    )
    return window.per_request()


async def _loaded(
    subject: Subject, plan: Plan, at_once: int, *, tokens: int, stream: bool, chunks: int = 0, requests: int = 0
) -> tuple[Window, int]:
    """The window, and of how many events one answer consists. Raises BadAnswer, also when nothing comes."""
    request = subject.target.request(max_tokens=tokens, stream=stream)
    with Client(subject.target, Tally()) as client:
        first = await client.ask(request, stream=stream)
        async with endless(client, request, at_once, stream=stream, linger_s=plan.linger_s):
            await asyncio.sleep(plan.settle_s)
            window = await measured(
                subject, client.tally, plan.window_s, box_s=plan.box_s, chunks=chunks, requests=requests
            )
    if not (window.answers if requests else window.events):
        raise BadAnswer(f"nothing came within {window.seconds:.0f} s")
    return window, first.events
