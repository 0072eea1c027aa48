"""Many users at little cost: each sends one request after the other over bare sockets until the time is over.

As a program it reads its job from stdin and writes what became of the requests to stdout, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections import Counter
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import urlsplit

from cloudach_service.processes import die_with_parent

from tests.support.processes import ROOT

_DONE = b"data: [DONE]\n\n"
_LAST_CHUNK = b"\r\n0\r\n\r\n"


class Users:
    """`with Users(base_url, key, count=1000, seconds=300, tokens=(20, 200)) as users: … users.outcomes()`.

    They break off one of ten answers before its end.
    """

    def __init__(
        self, base_url: str, key: str, *, model: str, count: int, seconds: float, tokens: tuple[int, int]
    ) -> None:
        job = {"url": base_url, "key": key, "model": model, "count": count, "seconds": seconds, "tokens": tokens}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
            preexec_fn=die_with_parent(),
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job))
        self._process.stdin.close()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def outcomes(self) -> Counter[str]:
        """How many answers were `finished` or `left`, or how they broke; once all have ended."""
        assert self._process.stdout is not None
        told = self._process.stdout.read()
        assert self._process.wait() == 0
        return Counter(json.loads(told))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


class _Connection(asyncio.Protocol):
    """One request at a time: `await ask(…)` says what became of it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._answered: asyncio.Future[str] | None = None

    def ask(self, request: bytes, leave_after: int | None) -> asyncio.Future[str]:
        self._answered = asyncio.get_running_loop().create_future()
        self._tail = b""
        self._head = b""
        self._leave_after = leave_after
        self._events = 0
        self.transport.write(request)
        return self._answered

    def data_received(self, data: bytes) -> None:
        if len(self._head) < 12:
            self._head += data[:12]
        if self._leave_after is not None:
            self._events += data.count(b"data: ")
            if self._events >= self._leave_after:
                self._end("left")
                return
        self._tail = self._tail[-64:] + data if len(data) < 64 else data
        if self._tail.endswith(_LAST_CHUNK):
            self._end("finished" if _DONE in self._tail[-64:] else f"{self._head!r} … {self._tail[-300:]!r}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"connection lost: {exc!r}")

    def _end(self, outcome: str) -> None:
        answered, self._answered = self._answered, None
        if answered is not None and not answered.done():
            answered.set_result(outcome)


async def _run(job: dict[str, Any]) -> Counter[str]:
    loop = asyncio.get_running_loop()
    address = urlsplit(job["url"])
    outcomes: Counter[str] = Counter()
    ends_at = loop.time() + job["seconds"]

    def request(number: int, tokens: int) -> bytes:
        body = json.dumps(
            {
                "model": job["model"],
                "messages": [{"role": "user", "content": f"Number {number}"}],
                "temperature": 0,
                "max_tokens": tokens,
                "ignore_eos": True,
                "stream": True,
            }
        ).encode()
        head = (
            f"POST {address.path}/chat/completions HTTP/1.1",
            f"Host: {address.netloc}",
            f"Authorization: Bearer {job['key']}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        )
        return "\r\n".join((*head, "", "")).encode() + body

    async def user(number: int) -> None:
        chance = random.Random(number)
        connection: _Connection | None = None
        await asyncio.sleep(chance.uniform(0, job["seconds"] / 20))
        while loop.time() < ends_at:
            if connection is None:
                _, connection = await loop.create_connection(_Connection, address.hostname, address.port)
            tokens = chance.randint(*job["tokens"])
            leave_after = chance.randint(1, tokens) if chance.random() < 0.1 else None
            outcome = await connection.ask(request(number, tokens), leave_after)
            outcomes[outcome] += 1
            if outcome != "finished" or chance.random() < 0.5:
                connection.transport.abort() if outcome == "left" else connection.transport.close()
                connection = None
        if connection is not None:
            connection.transport.close()

    await asyncio.gather(*map(user, range(job["count"])))
    return outcomes


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_run(json.load(sys.stdin)))))
