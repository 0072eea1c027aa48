"""LiteLLM's SDK, with the prefix `openai/`."""

from __future__ import annotations

import json

import litellm
from features import API_KEY, BASE_URL, CITY, EMBEDDING_MODEL, MODEL, WEATHER, feature, says

litellm.telemetry = False
to = {"api_base": BASE_URL, "api_key": API_KEY}
ask = {"model": f"openai/{MODEL}", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 64, **to}


@feature("chat")
def chat() -> None:
    says(litellm.completion(**ask).choices[0].message.content)


@feature("stream")
def stream() -> None:
    says("".join(chunk.choices[0].delta.content or "" for chunk in litellm.completion(**ask, stream=True)))


@feature("stream, async")
async def stream_async() -> None:
    stream = await litellm.acompletion(**ask, stream=True)
    says("".join([chunk.choices[0].delta.content or "" async for chunk in stream]))


@feature("usage in the stream")
def usage() -> None:
    chunks = list(litellm.completion(**ask, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.completion_tokens > 0


@feature("tools")
def tools() -> None:
    answer = litellm.completion(**ask, tools=[WEATHER], tool_choice="required")
    assert answer.choices[0].message.tool_calls[0].function.name == "weather"


@feature("structured output")
def structured() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": CITY}}
    says(json.loads(litellm.completion(**ask, response_format=form).choices[0].message.content)["city"])


@feature("embeddings")
def embeddings() -> None:
    assert len(litellm.embedding(model=f"openai/{EMBEDDING_MODEL}", input=["a", "b"], **to).data) == 2


@feature("errors")
def errors() -> None:
    try:
        litellm.completion(**ask | {"api_key": "sk-wrong"})
    except litellm.AuthenticationError:
        return
    raise AssertionError("no AuthenticationError")
