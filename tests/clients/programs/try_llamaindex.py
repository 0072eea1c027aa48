"""LlamaIndex's OpenAILike."""

from __future__ import annotations

from features import API_KEY, BASE_URL, MODEL, feature, says
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

llm = OpenAILike(
    model=MODEL,
    api_base=BASE_URL,
    api_key=API_KEY,
    is_chat_model=True,
    is_function_calling_model=True,
    context_window=4096,
    max_tokens=64,
)
asked = [ChatMessage(role="user", content="Hello")]


@feature("chat")
def chat() -> None:
    says(llm.chat(asked).message.content)


@feature("stream")
def stream() -> None:
    says("".join(part.delta or "" for part in llm.stream_chat(asked)))


@feature("stream, async")
async def stream_async() -> None:
    says("".join([part.delta or "" async for part in await llm.astream_chat(asked)]))


@feature("tools")
def tools() -> None:
    def weather(city: str) -> str:
        """Tells the weather in a city."""
        return f"sunny in {city}"

    answer = llm.chat_with_tools([FunctionTool.from_defaults(weather)], user_msg="Paris?", tool_required=True)
    assert llm.get_tool_calls_from_response(answer)[0].tool_name == "weather"
