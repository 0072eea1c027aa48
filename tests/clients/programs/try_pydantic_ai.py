"""Pydantic AI's agents over its OpenAI chat model."""

from __future__ import annotations

from features import API_KEY, BASE_URL, MODEL, feature, says
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=BASE_URL, api_key=API_KEY))


class Place(BaseModel):
    city: str


@feature("chat")
def chat() -> None:
    answer = Agent(model).run_sync("Hello")
    says(answer.output)


@feature("stream, async")
async def stream_async() -> None:
    async with Agent(model).run_stream("Hello") as answer:
        says("".join([part async for part in answer.stream_text(delta=True)]))


@feature("structured output")
def structured() -> None:
    says(Agent(model, output_type=Place).run_sync("Where is the Louvre?").output.city)
