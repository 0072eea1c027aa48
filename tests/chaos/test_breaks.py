"""Breaks that need some timing, one stream each."""

from __future__ import annotations

from typing import Any

import openai

from tests.support.replicas import MODEL, replicas
from tests.support.stack import create_key, served_by, start_gateway


def test_an_error_that_comes_with_the_first_events() -> None:
    """Its [DONE] is no clean end."""
    fields: dict[str, Any] = {"model": MODEL, "prompt": "Tell me of the sea 3", "max_tokens": 30, "temperature": 0}
    with (
        replicas(2, flat=True) as engines,  # all events in one write
        start_gateway({"models": [served_by(*(engine.sim for engine in engines), max_model_len=32768)]}) as gateway,
        openai.OpenAI(base_url=gateway.base_url, api_key=create_key(gateway), max_retries=0) as client,
    ):

        def answer() -> str:
            stream = client.completions.create(**fields, stream=True, extra_body={"ignore_eos": True})
            return "".join(chunk.choices[0].text for chunk in stream)

        undisturbed = answer()
        for engine in engines:
            engine.sim.arm("error@9")
        assert answer() == undisturbed
        assert sum(engine.sim.stats()["failed_total"] for engine in engines) == 2
