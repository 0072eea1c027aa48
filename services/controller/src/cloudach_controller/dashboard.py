"""Ray's dashboard: what Serve says of a Model's replicas."""

from __future__ import annotations

from typing import Any

import aiohttp


class Unanswered(Exception):
    """The dashboard does not answer as it should; the message says what it did."""


class Unauthorized(Unanswered):
    """It wants another token."""


class Dashboard:
    def __init__(self, session: aiohttp.ClientSession, timeout_s: float) -> None:
        self._session = session
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def applications(self, base_url: str, token: str | None) -> dict[str, Any]:
        """Raises Unanswered."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            async with self._session.get(
                f"{base_url}/api/serve/applications/", headers=headers, timeout=self._timeout
            ) as answer:
                if answer.status != 200:
                    kind = Unauthorized if answer.status in (401, 403) else Unanswered
                    raise kind(f"{base_url} answers {answer.status}: {(await answer.text())[:200]}")
                found: dict[str, Any] = await answer.json(content_type=None)
                return found
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Unanswered(f"{base_url}: {type(error).__name__}: {error}") from error
