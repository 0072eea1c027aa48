"""What is measured. A further proxy is one more class in this package and one more line in `ALL`."""

from __future__ import annotations

from .base import PROXY, Contender, Engine
from .before import CHECKOUT, Before
from .cloudach import Cloudach
from .direct import Direct
from .haproxy import HAProxy
from .litellm import LiteLLM
from .traced import AllSampled, Unsampled
from .vllm_router import VllmRouter

_KINDS: tuple[type[Contender], ...] = (Direct, HAProxy, Cloudach, Unsampled, AllSampled, VllmRouter, LiteLLM)
ALL: dict[str, type[Contender]] = {kind.name: kind for kind in _KINDS}
if CHECKOUT is not None:
    ALL[Before.name] = Before

USUAL = tuple(name for name, kind in ALL.items() if kind.usual)
"""The bench measures these unless others are named."""

__all__ = ["ALL", "PROXY", "USUAL", "Contender", "Engine"]
