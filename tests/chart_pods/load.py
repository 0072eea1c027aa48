"""Streams through a gateway until stdin ends, then says how they went: load.py BASE_URL API_KEY MODEL STREAMS

Prints `running` when each stream has begun, `again` when one has begun after another ended, and at the end
{"finished": n, "broken": [reasons]}. The SDK never tries again: a gateway that is replaced refuses nobody.
"""

from __future__ import annotations

import asyncio
import json
import sys

import httpx
import openai

TOKENS = 600
"""Of each stream, ten seconds of the simulator here: longer than a gateway is there that would not drain."""


class Load:
    def __init__(self, client: openai.AsyncOpenAI, model: str) -> None:
        self._client = client
        self._model = model
        self.finished = 0
        self.again = asyncio.Event()
        self.broken: list[str] = []
        self.ending = False

    async def stream_on(self, begun: asyncio.Event) -> None:
        while not self.ending:
            try:
                await self._stream(begun)
                begun = self.again
                self.finished += 1
            except (openai.OpenAIError, httpx.HTTPError, AssertionError) as error:
                self.broken.append(repr(error))
                await asyncio.sleep(0.2)  # whatever is wrong is not asked a thousand times

    async def say_again(self) -> None:
        await self.again.wait()
        print("again", flush=True)

    async def _stream(self, begun: asyncio.Event) -> None:
        stream = await self._client.chat.completions.create(
            model=self._model,
            messages=[{"role": "user", "content": "Tell me a long story."}],
            max_tokens=TOKENS,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        reason, usage = None, None
        async for chunk in stream:
            begun.set()
            usage = chunk.usage or usage
            for choice in chunk.choices:
                reason = choice.finish_reason or reason
        assert reason is not None, "the stream ended without a finish reason"
        assert usage is not None, "the stream ended without its usage"
        assert usage.completion_tokens == TOKENS, f"{usage.completion_tokens} tokens of {TOKENS}"


async def main(base_url: str, key: str, model: str, streams: str) -> None:
    async with openai.AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0) as client:
        load = Load(client, model)
        begun = [asyncio.Event() for _ in range(int(streams))]
        tasks = [asyncio.create_task(load.stream_on(event)) for event in begun]
        await asyncio.gather(*(event.wait() for event in begun))
        print("running", flush=True)
        said = asyncio.create_task(load.say_again())
        await asyncio.to_thread(sys.stdin.read)
        load.ending = True
        await asyncio.gather(*tasks)
        said.cancel()
    print(json.dumps({"finished": load.finished, "broken": load.broken}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
