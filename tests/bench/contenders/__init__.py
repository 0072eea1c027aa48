"""What is measured. A further proxy is one more class in this package and one more line in `ALL`."""

from __future__ import annotations

from .base import PROXY, Contender, Engine
from .before import CHECKOUT, Before
from .cloudach import Cloudach
from .direct import Direct
from .haproxy import HAProxy
from .litellm import LiteLLM
from .vllm_router import VllmRouter

ALL: dict[str, type[Contender]] = {kind.name: kind for kind in (Direct, HAProxy, Cloudach, VllmRouter, LiteLLM)}
if CHECKOUT is not None:
    ALL[Before.name] = Before

__all__ = ["ALL", "PROXY", "Contender", "Engine"]
