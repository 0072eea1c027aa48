"""The clients that are tried, each with its version and the program that tries it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Client:
    """One client of one version.

    packages: as the registry's own installer takes them, the client itself first, with its version pinned.
    program: a file of `programs/` and its arguments. note: what a user of this client has to know.
    """

    name: str
    registry: Literal["pypi", "npm"]
    packages: tuple[str, ...]
    program: tuple[str, ...]
    note: str = ""

    @property
    def version(self) -> str:
        package = self.packages[0]
        return package.rpartition("@" if self.registry == "npm" else "==")[2]


CLIENTS = (
    Client("openai (Python, oldest supported)", "pypi", ("openai==1.40.0", "httpx<0.28"), ("openai_python.py",)),
    Client("openai (Python)", "pypi", ("openai==3.57.0",), ("openai_python.py",)),
    Client("openai (Node.js)", "npm", ("openai@7.59.0",), ("openai_node.mjs",)),
    Client("LangChain", "pypi", ("langchain-openai==1.7.4",), ("try_langchain.py",)),
    Client("LlamaIndex", "pypi", ("llama-index-llms-openai-like==0.8.1",), ("try_llamaindex.py",)),
    Client("Pydantic AI", "pypi", ("pydantic-ai-slim[openai]==2.68.0",), ("try_pydantic_ai.py",)),
    Client("instructor", "pypi", ("instructor==1.17.0",), ("try_instructor.py",)),
    Client("OpenAI Agents SDK", "pypi", ("openai-agents==0.24.0",), ("try_agents.py",)),
    Client("LiteLLM", "pypi", ("litellm==1.110.2",), ("try_litellm.py",)),
    Client("AI SDK", "npm", ("ai@7.0.173", "@ai-sdk/openai-compatible@3.0.92"), ("ai_sdk.mjs",)),
    Client("llm", "pypi", ("llm==0.36",), ("command.py", "llm")),
    Client("aider", "pypi", ("aider-chat==0.86.2",), ("command.py", "aider")),
    Client("guidellm", "pypi", ("guidellm==0.8.1", "torch"), ("command.py", "guidellm")),
    Client("aiperf", "pypi", ("aiperf==0.13.0",), ("command.py", "aiperf")),
)
