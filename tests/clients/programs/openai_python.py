"""The OpenAI SDK for Python, sync and async."""

from __future__ import annotations

import json

import openai
from features import API_KEY, BASE_URL, CITY, EMBEDDING_MODEL, MODEL, WEATHER, feature, says

client = openai.OpenAI(base_url=BASE_URL, api_key=API_KEY)
messages = [{"role": "user", "content": "Where is the Eiffel Tower?"}]


@feature("models")
def models() -> None:
    assert MODEL in [model.id for model in client.models.list()]


@feature("chat")
def chat() -> None:
    answer = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=16)
    says(answer.choices[0].message.content)
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 16


@feature("stream")
def stream() -> None:
    chunks = list(client.chat.completions.create(model=MODEL, messages=messages, max_tokens=16, stream=True))
    says("".join(chunk.choices[0].delta.content or "" for chunk in chunks))
    assert len(chunks) > 2


@feature("stream, async")
async def stream_async() -> None:
    async with openai.AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY) as async_client:
        stream = await async_client.chat.completions.create(model=MODEL, messages=messages, max_tokens=16, stream=True)
        says("".join([chunk.choices[0].delta.content or "" async for chunk in stream]))


@feature("usage in the stream")
def usage() -> None:
    options = {"include_usage": True}
    stream = client.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=8, stream=True, stream_options=options
    )
    *chunks, last = list(stream)
    assert last.choices == []
    assert last.usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in chunks)


@feature("tools")
def tools() -> None:
    asked = {"model": MODEL, "messages": messages, "tools": [WEATHER], "max_tokens": 64}
    answer = client.chat.completions.create(**asked, tool_choice="required")
    call = answer.choices[0].message.tool_calls[0]
    assert call.function.name == "weather"
    says(json.loads(call.function.arguments)["city"])
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    turn = [*messages, answer.choices[0].message.model_dump(exclude_none=True), result]
    says(client.chat.completions.create(model=MODEL, messages=turn, max_tokens=16).choices[0].message.content)


@feature("structured output")
def structured() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": CITY, "strict": True}}
    answer = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=64, response_format=form)
    says(json.loads(answer.choices[0].message.content)["city"])


@feature("embeddings")
def embeddings() -> None:
    answer = client.embeddings.create(model=EMBEDDING_MODEL, input=["a", "b"])
    assert len(answer.data) == 2
    assert len(answer.data[0].embedding) > 1


@feature("errors")
def errors() -> None:
    for change, expected in (
        ({"api_key": "sk-wrong"}, openai.AuthenticationError),
        ({}, openai.NotFoundError),
    ):
        raised = None
        try:
            client.with_options(**change).chat.completions.create(model="nothing", messages=messages)
        except expected as error:
            raised = error
        assert raised is not None, f"no {expected.__name__}"
        assert raised.code in ("invalid_api_key", "model_not_found")
        assert raised.request_id
