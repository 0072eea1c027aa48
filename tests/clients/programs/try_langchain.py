"""LangChain's ChatOpenAI and OpenAIEmbeddings."""

from __future__ import annotations

from features import API_KEY, BASE_URL, EMBEDDING_MODEL, MODEL, feature, says
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

chat_model = ChatOpenAI(model=MODEL, base_url=BASE_URL, api_key=API_KEY, max_tokens=64)


class Place(BaseModel):
    city: str


@tool
def weather(city: str) -> str:
    """Tells the weather in a city."""
    return f"sunny in {city}"


@feature("chat")
def chat() -> None:
    answer = chat_model.invoke("Hello")
    says(answer.content)
    assert answer.usage_metadata["output_tokens"] > 0


@feature("stream")
def stream() -> None:
    chunks = list(chat_model.stream("Hello"))
    says("".join(chunk.content for chunk in chunks))


@feature("stream, async")
async def stream_async() -> None:
    says("".join([chunk.content async for chunk in chat_model.astream("Hello")]))


@feature("usage in the stream")
def usage() -> None:
    total = None
    for chunk in chat_model.stream("Hello", stream_usage=True):
        total = chunk if total is None else total + chunk
    assert total.usage_metadata["output_tokens"] > 0


@feature("tools")
def tools() -> None:
    asked = [HumanMessage("How is the weather in Paris?")]
    call = chat_model.bind_tools([weather], tool_choice="required").invoke(asked)
    assert call.tool_calls[0]["name"] == "weather"
    result = ToolMessage(weather.invoke(call.tool_calls[0]["args"]), tool_call_id=call.tool_calls[0]["id"])
    says(chat_model.invoke([*asked, call, result]).content)


@feature("structured output")
def structured() -> None:
    says(chat_model.with_structured_output(Place, method="json_schema").invoke("Where is the Louvre?").city)


@feature("embeddings")
def embeddings() -> None:
    made = OpenAIEmbeddings(model=EMBEDDING_MODEL, base_url=BASE_URL, api_key=API_KEY, check_embedding_ctx_length=False)
    assert len(made.embed_documents(["a", "b"])) == 2
