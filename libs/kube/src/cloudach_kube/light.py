"""This transport sends requests by httpx alone, because a gateway process has to stay small."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx

from .access import Access, AccessError
from .errors import Unreachable
from .transport import KEEP_ALIVE

# Each watch holds a connection for good. httpx allows 100 unless it is told otherwise.
_AS_MANY_AS_WATCHES_NEED = httpx.Limits(max_connections=None, max_keepalive_connections=20)

for _library in ("httpx", "httpcore"):  # they would tell of each request
    logging.getLogger(_library).setLevel(logging.WARNING)


class LightTransport:
    """`agent` names us in the server's logs."""

    def __init__(self, access: Access, *, agent: str) -> None:
        self._access = access
        self._http = httpx.AsyncClient(
            base_url=access.url,
            transport=httpx.AsyncHTTPTransport(
                verify=access.tls, socket_options=KEEP_ALIVE, trust_env=False, limits=_AS_MANY_AS_WATCHES_NEED
            ),
            timeout=None,  # noqa: S113  # the client sets a deadline for each request
            headers={"user-agent": agent, "accept": "application/json"},
        )

    async def close(self) -> None:
        await self._http.aclose()

    @asynccontextmanager
    async def send(
        self, method: str, path: str, *, query: Mapping[str, str], content: str, body: Any | None
    ) -> AsyncIterator[_Answer]:
        headers = self._proof()
        if body is not None:
            headers["content-type"] = content
        data = None if body is None else json.dumps(body)
        with _translated():
            request = self._http.build_request(method, path, params=dict(query), headers=headers, content=data)
            answer = await self._http.send(request, stream=True)
        try:
            yield _Answer(answer)
        finally:
            await answer.aclose()

    def _proof(self) -> dict[str, str]:
        try:
            token = self._access.bearer()
        except AccessError as error:
            raise Unreachable(0, str(error)) from error
        return {} if token is None else {"authorization": f"Bearer {token}"}


class _Answer:
    def __init__(self, answer: httpx.Response) -> None:
        self._answer = answer
        self.status = answer.status_code

    async def read(self) -> bytes:
        with _translated():
            return await self._answer.aread()

    async def chunks(self) -> AsyncGenerator[bytes]:
        with _translated():
            async for data in self._answer.aiter_bytes():
                yield data


@contextmanager
def _translated() -> Iterator[None]:
    """Turns httpx's errors into ours."""
    try:
        yield
    except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError) as error:
        raise Unreachable(0, f"the API server does not answer: {type(error).__name__}: {error}".rstrip(": ")) from error
