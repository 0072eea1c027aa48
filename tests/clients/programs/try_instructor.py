"""instructor over the OpenAI SDK, by tools and by JSON schema."""

from __future__ import annotations

import instructor
from features import API_KEY, BASE_URL, MODEL, feature, says
from openai import OpenAI
from pydantic import BaseModel

messages = [{"role": "user", "content": "Where is the Louvre?"}]


class Place(BaseModel):
    city: str


def ask(mode: instructor.Mode) -> Place:
    client = instructor.from_openai(OpenAI(base_url=BASE_URL, api_key=API_KEY), mode=mode)
    return client.chat.completions.create(model=MODEL, messages=messages, response_model=Place, max_tokens=64)


@feature("tools")
def tools() -> None:
    says(ask(instructor.Mode.TOOLS).city)


@feature("structured output")
def structured() -> None:
    says(ask(instructor.Mode.JSON_SCHEMA).city)
