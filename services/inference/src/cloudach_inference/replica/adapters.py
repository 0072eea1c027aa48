"""LoRA adapters are described, downloaded onto a replica's node, and fitted into its engine here.

Every problem with one is said as `LoRA adapter '<name>': …`, because the controller looks for these words.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..cache import cache_root

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILES = ("adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt")

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""vLLM's max_lora_rank may be one of these."""


class AdapterError(Exception):
    """An adapter cannot be had; the message names it, and says why."""

    @classmethod
    def of(cls, name: str, problem: str) -> AdapterError:
        """Stands in for __init__, because Ray pickles exceptions with their one message when it hands them on."""
        return cls(f"LoRA adapter {name!r}: {problem}")


class Adapter(BaseModel):
    """An adapter has one of folder, repo and uri. A simulator's adapter has none of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, description="what the engine answers to is <model>:<name>")
    folder: str | None = Field(None, description="absolute, on every node")
    repo: str | None = Field(None, description="of the Hugging Face Hub")
    revision: str | None = Field(None, description="of the repository")
    uri: str | None = Field(None, description="of an object store, as s3://bucket/adapters/sql")
    endpoint: str | None = Field(None, description="of a store that speaks S3 and is not Amazon's")
    env_prefix: str = Field("", description="variables for the download stand under this prefix, as X_HF_TOKEN")

    @property
    def downloaded(self) -> bool:
        return self.folder is None

    @property
    def source(self) -> str:
        return self.folder or self.uri or (f"{self.repo}@{self.revision}" if self.revision else self.repo or "")

    @property
    def path(self) -> Path:
        """Returns the adapter's folder on each node, once it is there."""
        if self.folder is not None:
            return Path(self.folder)
        digest = hashlib.sha256(f"{self.source} {self.endpoint or ''}".encode()).hexdigest()[:16]
        return cache_root(None) / "adapters" / digest


class Lora(BaseModel):
    """These are the adapters of one engine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    adapters: tuple[Adapter, ...] = Field(min_length=1)
    max_rank: int | None = Field(None, ge=1, le=_RANKS[-1], description="by default the largest adapter's")
    max_loaded: int = Field(8, ge=1, description="adapters that one batch may mix")

    @model_validator(mode="after")
    def _names_differ(self) -> Lora:
        names = [adapter.name for adapter in self.adapters]
        if len(set(names)) < len(names):
            raise ValueError("adapters: a name is used twice")
        return self

    def of_weights(self) -> None:
        """Raises ValueError where an adapter does not say where it lies."""
        for adapter in self.adapters:
            if sum(value is not None for value in (adapter.folder, adapter.repo, adapter.uri)) != 1:
                raise ValueError(f"adapters: {adapter.name}: give exactly one of folder, repo and uri")


def engine_name(model: str, adapter: str) -> str:
    """Returns the name that the engine answers to."""
    return f"{model}:{adapter}"


def rank(adapter: Adapter) -> int:
    """Returns the rank from the adapter's own configuration, and checks that all its files exist. Raises
    AdapterError.
    """
    file = adapter.path / CONFIG_FILE
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        raise AdapterError.of(adapter.name, f"there is no {CONFIG_FILE} in {adapter.source}") from None
    except (OSError, ValueError) as error:
        raise AdapterError.of(adapter.name, f"{CONFIG_FILE} of {adapter.source} cannot be read: {error}") from None
    value = found.get("r") if isinstance(found, dict) else None
    if not isinstance(value, int) or value < 1:
        raise AdapterError.of(
            adapter.name, f"{CONFIG_FILE} of {adapter.source} names no rank (`r`): is it a LoRA adapter?"
        )
    if not any((adapter.path / name).is_file() for name in WEIGHTS_FILES):
        raise AdapterError.of(adapter.name, f"there is no {WEIGHTS_FILES[0]} in {adapter.source}")
    return value


def engine_args(lora: Lora, *, on_cpu: bool = False) -> dict[str, Any]:
    """Returns vLLM's arguments for adapters that are on this node. Raises AdapterError."""
    ranks = {adapter.name: rank(adapter) for adapter in lora.adapters}
    name, largest = max(ranks.items(), key=lambda item: item[1])
    if largest > (lora.max_rank or _RANKS[-1]):
        raise AdapterError.of(name, f"its rank {largest} is above the largest allowed, {lora.max_rank or _RANKS[-1]}")
    room = next(rank for rank in _RANKS if rank >= (lora.max_rank or largest))
    # vLLM 0.29 on CPUs takes "no adapter" for the last place (index -1): requests for the model itself, in a batch with
    # an adapter's, get what lies there. So nothing ever does.
    places = len(lora.adapters) + 1 if on_cpu else lora.max_loaded
    return {
        "enable_lora": True,
        "max_lora_rank": room,
        "max_loras": places,
        # Those that are not in the batch wait in the CPU's memory, not on disk.
        "max_cpu_loras": max(len(lora.adapters), places),
    }


def fetch(adapter: Adapter) -> None:
    """Downloads the adapter onto this node, or updates it. Raises AdapterError."""
    if not adapter.downloaded:
        return
    target = adapter.path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (target.parent / f".{target.name}.lock").open("w") as lock, _environment(adapter):
            fcntl.flock(lock, fcntl.LOCK_EX)  # replicas of one node start side by side
            if adapter.repo is not None:
                _from_hub(adapter, target)
            else:
                _from_store(adapter, target)
    except AdapterError:
        raise
    except Exception as error:
        # Libraries of four kinds of stores: what they raise has nothing in common.
        raise AdapterError.of(adapter.name, f"{adapter.source}: {type(error).__name__}: {error}") from error


def _from_hub(adapter: Adapter, target: Path) -> None:
    from huggingface_hub import snapshot_download

    assert adapter.repo is not None
    snapshot_download(
        adapter.repo,
        revision=adapter.revision,
        local_dir=target,
        token=os.environ.get("HF_TOKEN"),
        allow_patterns=[CONFIG_FILE, *WEIGHTS_FILES],
    )


def _from_store(adapter: Adapter, target: Path) -> None:
    from ray.llm._internal.common.utils.cloud_utils import CloudFileSystem

    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as part:
        CloudFileSystem.download_files(path=part, bucket_uri=adapter.uri)
        found = [Path(part) / name for name in (CONFIG_FILE, *WEIGHTS_FILES)]
        target.mkdir(exist_ok=True)
        for file in found:
            if file.is_file():
                shutil.move(file, target / file.name)  # a rename: whoever reads the old one goes on doing so


@contextmanager
def _environment(adapter: Adapter) -> Iterator[None]:
    """Sets the variables that stand under the adapter's prefix, without the prefix, while the adapter is downloaded."""
    before = dict(os.environ)
    try:
        if adapter.env_prefix:
            prefixed = [name for name in before if name.startswith(adapter.env_prefix)]
            os.environ.update({name.removeprefix(adapter.env_prefix): before[name] for name in prefixed})
        if adapter.endpoint is not None:
            os.environ["AWS_ENDPOINT_URL"] = adapter.endpoint
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
