"""Users of the official SDK, many at a time: each sends one request, and what it got is kept.

    with Crowd(base_url, key, asks, over_s=10) as crowd:    # it runs in processes of its own
        …
        answers = crowd.answers()

As a program it reads one job from stdin and writes one line of JSON an answer.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Self

import openai

from tests.support.processes import ROOT, dies_with_parent

_PROCESSES = 2  # one SDK takes 0.3 ms for a chunk


@dataclass
class Ask:
    """`path`: chat or completions. `leave_after`: events after which this user goes away."""

    path: str
    body: dict[str, Any]
    leave_after: int | None = None


@dataclass
class Answer:
    """What a user notices. `heads`: the different id, created and model of its chunks; `error`: '' or how it broke."""

    text: str = ""
    finish_reason: str | None = None
    usage: dict[str, int] | None = None
    roles: int = 0
    events: int = 0
    heads: list[list[Any]] = field(default_factory=list)
    request_id: str | None = None
    left: bool = False
    error: str = ""

    def same(self) -> dict[str, Any]:
        """What must not depend on who answered."""
        return {
            "text": self.text,
            "finish_reason": self.finish_reason,
            "usage": self.usage,
            "roles": self.roles,
            "error": self.error,
        }


class Crowd:
    """`asks` begin evenly spread over `over_s` seconds. Made and ended by the main thread."""

    def __init__(
        self,
        base_url: str,
        key: str,
        asks: Sequence[Ask],
        *,
        over_s: float = 0.0,
        retries: int = 0,
        processes: int = _PROCESSES,
    ) -> None:
        """retries: the SDK's own, before the first byte. base_url: as an SDK takes it."""
        self._asks = asks
        self._outputs = [tempfile.TemporaryFile("w+") for _ in range(processes)]  # noqa: SIM115 - closed by __exit__
        self._running = []
        for number, output in enumerate(self._outputs):
            job = {
                "base_url": base_url,
                "key": key,
                "retries": retries,
                "asks": [
                    [index, over_s * index / len(asks), asdict(asks[index])]
                    for index in range(number, len(asks), processes)
                ],
            }
            process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=output,
                cwd=ROOT,
                text=True,
                preexec_fn=dies_with_parent(),
            )
            self._running.append(process)
            assert process.stdin is not None
            process.stdin.write(json.dumps(job))
            process.stdin.close()

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._running]

    @property
    def running(self) -> bool:
        return any(process.poll() is None for process in self._running)

    def answers(self, *, within_s: float = 300.0) -> list[Answer]:
        """In the order of the asks, once all have ended."""
        deadline = time.monotonic() + within_s
        found: dict[int, Answer] = {}
        for process, output in zip(self._running, self._outputs, strict=True):
            assert process.wait(max(0.0, deadline - time.monotonic())) == 0
            output.seek(0)
            for line in output:
                index, answer = json.loads(line)
                found[index] = Answer(**answer)
        return [found[index] for index in range(len(self._asks))]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process, output in zip(self._running, self._outputs, strict=True):
            if process.poll() is None:
                process.kill()
            process.wait()
            output.close()


async def answer(client: openai.AsyncOpenAI, ask: Ask) -> Answer:
    """One user's whole visit. Raises nothing that the SDK raises."""
    got = Answer()
    try:
        if ask.body.get("stream"):
            await _stream(client, ask, got)
        else:
            await _whole(client, ask, got)
    except (openai.OpenAIError, OSError) as error:
        got.error = f"{type(error).__name__}: {error}"
    except Exception as error:  # the SDK passes on what its HTTP client raises in mid-stream
        got.error = f"{type(error).__name__}: {error}"
    return got


async def _stream(client: openai.AsyncOpenAI, ask: Ask, got: Answer) -> None:
    create = client.chat.completions.create if ask.path == "chat" else client.completions.create
    async with await create(**_split(ask.body)) as stream:
        got.request_id = stream.response.headers.get("x-request-id")
        async for chunk in stream:
            got.events += 1
            head = [chunk.id, chunk.created, chunk.model]
            if head not in got.heads:
                got.heads.append(head)
            if chunk.usage is not None:
                got.usage = _counts(chunk.usage)
            for choice in chunk.choices:
                if ask.path == "chat":
                    got.roles += choice.delta.role is not None
                    got.text += choice.delta.content or ""
                else:
                    got.text += choice.text
                got.finish_reason = choice.finish_reason or got.finish_reason
            if ask.leave_after is not None and got.events >= ask.leave_after:
                got.left = True
                return


async def _whole(client: openai.AsyncOpenAI, ask: Ask, got: Answer) -> None:
    create = client.chat.completions.create if ask.path == "chat" else client.completions.create
    answered = await create(**_split(ask.body))
    (choice,) = answered.choices
    got.request_id = answered._request_id
    got.text = choice.message.content if ask.path == "chat" else choice.text
    got.finish_reason = choice.finish_reason
    got.usage = _counts(answered.usage)
    got.heads.append([answered.id, answered.created, answered.model])


def _split(body: dict[str, Any]) -> dict[str, Any]:
    """What the SDK does not know goes where it wants it."""
    ours = {name: body[name] for name in ("ignore_eos",) if name in body}
    return {**{name: value for name, value in body.items() if name not in ours}, "extra_body": ours}


def _counts(usage: Any) -> dict[str, int]:
    return {name: getattr(usage, name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")}


async def _run(job: dict[str, Any]) -> None:
    began = time.monotonic()
    async with openai.AsyncOpenAI(
        base_url=job["base_url"], api_key=job["key"], max_retries=job["retries"], timeout=300
    ) as client:

        async def one(index: int, at_s: float, ask: Ask) -> None:
            await asyncio.sleep(max(0.0, began + at_s - time.monotonic()))
            print(json.dumps([index, asdict(await answer(client, ask))]), flush=True)

        await asyncio.gather(*(one(index, at_s, Ask(**ask)) for index, at_s, ask in job["asks"]))


if __name__ == "__main__":
    asyncio.run(_run(json.load(sys.stdin)))
