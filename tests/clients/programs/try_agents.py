"""OpenAI's Agents SDK over chat completions."""

from __future__ import annotations

from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from features import API_KEY, BASE_URL, MODEL, feature, says
from openai import AsyncOpenAI
from pydantic import BaseModel

set_tracing_disabled(True)


def agent(**options: object) -> Agent:
    client = AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY)
    return Agent(name="guide", model=OpenAIChatCompletionsModel(model=MODEL, openai_client=client), **options)


class Place(BaseModel):
    city: str


@feature("chat")
async def chat() -> None:
    says((await Runner.run(agent(), "Hello")).final_output)


@feature("stream, async")
async def stream_async() -> None:
    running = Runner.run_streamed(agent(), "Hello")
    kinds = [event.type async for event in running.stream_events()]
    assert kinds.count("raw_response_event") > 2
    says(running.final_output)


@feature("tools")
async def tools() -> None:
    asked: list[str] = []

    @function_tool
    def weather(city: str) -> str:
        """Tells the weather in a city."""
        asked.append(city)
        return f"sunny in {city}"

    done = await Runner.run(agent(tools=[weather], model_settings=ModelSettings(tool_choice="required")), "Paris?")
    assert len(asked) == 1
    says(done.final_output)


@feature("structured output")
async def structured() -> None:
    says((await Runner.run(agent(output_type=Place), "Where is the Louvre?")).final_output.city)
