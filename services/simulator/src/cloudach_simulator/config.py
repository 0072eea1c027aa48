"""The settings of one simulator."""

from __future__ import annotations

from dataclasses import dataclass

from .request import Limits


@dataclass(slots=True)
class SimConfig:
    """All settings and their defaults."""

    models: tuple[str, ...] = ("sim",)
    """The names of the served model. Answers carry the first, as vLLM's do."""
    adapters: tuple[str, ...] = ()
    """The names of LoRA adapters, as in vLLM's --lora-modules. Each is a model of its own with other texts."""
    embedding_models: tuple[str, ...] = ()
    """The names of models that /v1/embeddings serves (64 dimensions)."""
    max_model_len: int = 32_768
    """The most tokens of prompt and answer together."""
    rate: float = 50.0
    """Tokens per second of each stream. 0: as fast as the reader takes them."""
    jitter: float = 0.0
    """The interval of each tick varies by this fraction, alike for all streams."""
    spread: bool = False
    """Streams tick at different times. Otherwise all streams of one rate tick at once, like an engine's steps."""
    ttft_ms: float = 0.0
    """The time from a request to its first token."""
    tokens_per_chunk: int = 1
    """Like vLLM's --stream-interval: the first chunk carries one token, later chunks carry this many."""
    burst: int = 32
    """Chunks per write, where `rate` is 0."""
    tool_parser: str = "hermes"
    prompt_tokens_details: bool = False
    """Like vLLM's --enable-prompt-tokens-details: usage names the cached tokens, of which there are none."""
    api_keys: tuple[str, ...] = ()
    root_path: str = ""
    """All routes are also served under this prefix, such as /slug."""
    max_body: int = 64 * 1024 * 1024
    """The most bytes of a request's body."""
    fault: str = ""
    """Faults that happen to every request (see faults.py)."""
    fault_seed: int = 0
    allow_exit: bool = True
    """`die` may kill this process. Otherwise it aborts the connection."""

    def limits(self) -> Limits:
        """Returns what requests are checked against."""
        return Limits(self.models, self.max_model_len, self.tool_parser, self.adapters)
