"""What the API needs from admission."""

from __future__ import annotations

from typing import Protocol

from ..admission import Grant as Grant
from ..admission.tenancy import PresentedKey
from ..errors import LimitState


class KnownKey(Protocol):
    """A caller's key, as far as routes care."""

    @property
    def key_id(self) -> str: ...

    @property
    def tenant(self) -> str: ...

    @property
    def limits(self) -> LimitState: ...

    def may_use(self, names: tuple[str, ...]) -> bool:
        """Whether the key allows a model that goes under any of these names."""


class Admission(Protocol):
    def knows(self, key: PresentedKey) -> bool:
        """Whether it was accepted by Redis lately; that it still is, admission finds out."""

    async def authenticate(self, api_key: str) -> KnownKey:
        """Looks the key up and consumes nothing. Raises InvalidApiKey, PermissionDenied, Overloaded."""

    async def admit(
        self,
        api_key: str,
        *,
        request_id: str,
        models: tuple[str, ...],
        tokens: int,
        fingerprint: str,
        retry: bool,
        model: str,
        route: str,
        guided: bool,
    ) -> Grant:
        """Key, model, limits and a lease in one round trip. Raises those, RateLimited and NeverFits."""

    def settle_soon(
        self,
        grant: Grant,
        *,
        prompt_tokens: int,
        completion_tokens: int,
        cached_tokens: int,
        outcome: str,
        ttft_s: float | None,
        duration_s: float,
        failovers: int,
        window_tokens: int | None,
    ) -> None:
        """Writes the usage record and puts what was really used in the place of what was reserved; in the background,
        once per request id. window_tokens: what counts in the minute if it is not what is billed."""
