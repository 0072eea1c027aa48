"""The dashboard of Ray answers how Serve's replicas are, and takes configurations past KubeRay."""

from __future__ import annotations

import json
from typing import Any

import aiohttp


class Unanswered(Exception):
    """The dashboard does not answer as it should; the message says what it did instead."""


class Unauthorized(Unanswered):
    """The dashboard wants another token."""


class Dashboard:
    def __init__(self, session: aiohttp.ClientSession, timeout_s: float) -> None:
        self._session = session
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def applications(self, base_url: str, token: str | None) -> dict[str, Any]:
        """Asks which applications Serve has. Raises Unanswered."""
        return _json_object(await self._ask("GET", base_url, token, None), base_url)

    async def configure(self, base_url: str, token: str | None, document: dict[str, Any]) -> None:
        """Gives Serve another configuration. New replica counts restart no replica that stays. Raises Unanswered."""
        await self._ask("PUT", base_url, token, document)

    async def _ask(self, verb: str, base_url: str, token: str | None, body: dict[str, Any] | None) -> str:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = f"{base_url}/api/serve/applications/"
        try:
            async with self._session.request(verb, url, json=body, headers=headers, timeout=self._timeout) as answer:
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Unanswered(f"{base_url}: {type(error).__name__}: {error}") from error
        if answer.status != 200:
            kind = Unauthorized if answer.status in (401, 403) else Unanswered
            raise kind(f"{base_url} answers {answer.status}: {text[:200]}")
        return text


def _json_object(text: str, base_url: str) -> dict[str, Any]:
    """Raises Unanswered."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise Unanswered(f"{base_url}: {type(error).__name__}: {error}") from error
    if not isinstance(found, dict):
        raise Unanswered(f"{base_url} answers something else than an object")
    return found
