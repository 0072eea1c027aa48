"""This class changes Ray Serve LLM's router of requests. Only its replica and the deployer import this."""

from __future__ import annotations

from typing import Any

from ray.llm._internal.serve.core.ingress import router

from .own_address import keep_to_own_address


class LLMRouter(router.LLMRouter):  # type: ignore[misc]
    """This is Ray's LLMRouter on its node's own address. It has the same name because the deployment is
    named after it.
    """

    async def __init__(self, *args: Any, **options: Any) -> None:  # type: ignore[misc]
        keep_to_own_address()
        await super().__init__(*args, **options)


def install() -> None:
    """Puts our class where Ray's builder looks, because no setting names another one."""
    router.LLMRouter = LLMRouter
