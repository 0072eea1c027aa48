"""Users of the official SDK, many at a time: each sends one request, and what it got is kept.

    with Crowd(base_url, key, asks, per_s=30) as crowd:    # it runs in processes of its own
        …
        answers = crowd.answers()

As a program it reads one job from stdin and writes one line of JSON an answer.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Self

import openai
from cloudach_service.processes import die_with_parent

from tests.support.processes import ROOT

_EXTENSIONS = ("ignore_eos", "top_k")  # vLLM's own fields, of which the SDK does not know
_PROCESSES = 2  # one SDK takes 0.3 ms for a chunk


@dataclass
class Ask:
    """path: chat or completions. leave_after: tokens after which this user goes away, where each chunk tells usage."""

    path: str
    body: dict[str, Any]
    leave_after: int | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Answer:
    """What a user notices. `number`: of the ask, from 0; `heads`: the different id, created and model of its chunks;
    `error`: '' or how it broke."""

    number: int = 0
    text: str = ""
    finish_reason: str | None = None
    usage: dict[str, int] | None = None
    roles: int = 0
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
    """`per_s` asks begin each second, all at once without it. Made and ended by the main thread."""

    def __init__(
        self, base_url: str, key: str, asks: Sequence[Ask], *, per_s: float = math.inf, repeat: bool = False
    ) -> None:
        """base_url: as an SDK takes it. repeat: from the first ask again after the last, until `enough`."""
        self._outputs = [tempfile.TemporaryFile("w+") for _ in range(_PROCESSES)]  # noqa: SIM115 - closed by __exit__
        self._running = []
        for number, output in enumerate(self._outputs):
            process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=output,
                cwd=ROOT,
                text=True,
                preexec_fn=die_with_parent(),
            )
            self._running.append(process)
            job = {
                "base_url": base_url,
                "key": key,
                "first": number,
                "step": _PROCESSES,
                "every_s": 1 / per_s,
                "repeat": repeat,
                "asks": [asdict(ask) for ask in asks],
            }
            assert process.stdin is not None
            process.stdin.write(json.dumps(job))
            process.stdin.close()

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._running]

    @property
    def running(self) -> bool:
        return any(process.poll() is None for process in self._running)

    def enough(self) -> None:
        """No further ask begins."""
        for process in self._running:
            process.send_signal(signal.SIGUSR1)

    def answers(self, *, within_s: float = 300.0) -> list[Answer]:
        """Waits until all requests have ended, and returns their answers in the order in which they were asked."""
        deadline = time.monotonic() + within_s
        found = []
        for process, output in zip(self._running, self._outputs, strict=True):
            assert process.wait(max(0.0, deadline - time.monotonic())) == 0
            output.seek(0)
            found += [Answer(**json.loads(line)) for line in output]
        return sorted(found, key=lambda answer: answer.number)

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


async def answer(client: openai.AsyncOpenAI, ask: Ask, number: int) -> Answer:
    """One user's whole visit. Raises nothing that the SDK raises."""
    got = Answer(number)
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
    async with await create(**_fields(ask)) as stream:
        got.request_id = stream.response.headers.get("x-request-id")
        async for chunk in stream:
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
            if ask.leave_after is not None and (got.usage or {}).get("completion_tokens", 0) >= ask.leave_after:
                got.left = True
                return


async def _whole(client: openai.AsyncOpenAI, ask: Ask, got: Answer) -> None:
    create = client.chat.completions.create if ask.path == "chat" else client.completions.create
    answered = await create(**_fields(ask))
    (choice,) = answered.choices
    got.request_id = answered._request_id
    got.text = choice.message.content if ask.path == "chat" else choice.text
    got.finish_reason = choice.finish_reason
    got.usage = _counts(answered.usage)
    got.heads.append([answered.id, answered.created, answered.model])


def _fields(ask: Ask) -> dict[str, Any]:
    known = {name: value for name, value in ask.body.items() if name not in _EXTENSIONS}
    extensions = {name: value for name, value in ask.body.items() if name in _EXTENSIONS}
    return {**known, "extra_body": extensions, "extra_headers": ask.headers}


def _counts(usage: Any) -> dict[str, int]:
    return {name: getattr(usage, name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")}


async def _run(job: dict[str, Any]) -> None:
    enough = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, enough.set)
    began = loop.time()
    asks = [Ask(**ask) for ask in job["asks"]]
    numbers = itertools.count(job["first"], job["step"])
    async with (
        openai.AsyncOpenAI(base_url=job["base_url"], api_key=job["key"], max_retries=0, timeout=300) as client,
        asyncio.TaskGroup() as visits,
    ):

        async def visit(number: int) -> None:
            got = await answer(client, asks[number % len(asks)], number)
            print(json.dumps(asdict(got)), flush=True)

        for number in numbers if job["repeat"] else itertools.takewhile(lambda number: number < len(asks), numbers):
            try:
                async with asyncio.timeout(began + job["every_s"] * number - loop.time()):
                    await enough.wait()
                break
            except TimeoutError:
                visits.create_task(visit(number))


if __name__ == "__main__":
    asyncio.run(_run(json.load(sys.stdin)))
