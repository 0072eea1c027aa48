"""How one simulator behaves."""

from __future__ import annotations

from dataclasses import dataclass

from .request import Limits


@dataclass(slots=True)
class SimConfig:
    """Every setting, with its default."""

    models: tuple[str, ...] = ("sim",)
    """Names it serves; answers carry the first, as vLLM's do."""
    adapters: tuple[str, ...] = ()
    """Names of LoRA adapters, as vLLM's --lora-modules gives them: models of their own, whose texts are others."""
    embedding_models: tuple[str, ...] = ()
    """Names that /v1/embeddings serves (64 dimensions)."""
    max_model_len: int = 32_768
    """Tokens of prompt and answer together."""
    rate: float = 50.0
    """Tokens a second of each stream; 0: flat out, as fast as the reader takes them."""
    jitter: float = 0.0
    """Each tick's interval varies by this fraction, alike for all streams."""
    spread: bool = False
    """Streams tick apart from one another; otherwise all of one rate at once, as an engine's steps do."""
    ttft_ms: float = 0.0
    """From the request to its first token."""
    tokens_per_chunk: int = 1
    """As vLLM's --stream-interval: the first chunk carries one token, later ones this many."""
    burst: int = 32
    """Flat out: chunks a write."""
    tool_parser: str = "hermes"
    prompt_tokens_details: bool = False
    """As vLLM's --enable-prompt-tokens-details: usage tells of cached tokens, of which there are none."""
    api_keys: tuple[str, ...] = ()
    root_path: str = ""
    """A prefix under which all routes lie as well, such as /slug."""
    max_body: int = 64 * 1024 * 1024
    """Bytes of a request's body."""
    fault: str = ""
    """Faults that strike every request (see faults.py)."""
    fault_seed: int = 0
    allow_exit: bool = True
    """Whether `die` may kill this process; otherwise it aborts the connection."""

    def limits(self) -> Limits:
        """What requests are checked against."""
        return Limits(self.models, self.max_model_len, self.tool_parser, self.adapters)
