"""Embeddings: each is a unit vector, a pure function of the input's token ids."""

from __future__ import annotations

import base64
import math
import struct
import time
import uuid
from typing import TYPE_CHECKING, Any

from . import tokenizer
from .errors import schema_error, unknown_model
from .generate import mix, start_state

if TYPE_CHECKING:
    from .app import Simulator

DIMENSIONS = 64


def vector(ids: list[int], dimensions: int = DIMENSIONS) -> list[float]:
    """Returns the vector of some tokens. Texts that share tokens are closer to one another."""
    values = [0.0] * dimensions
    for token in ids:
        for i in range(dimensions):
            values[i] += (mix(token, i) >> 20 & 0xFFFF) / 0x8000 - 1
    whole = start_state(ids)
    values = [v + ((mix(whole, i) >> 20 & 0xFFFF) / 0x8000 - 1) * 0.1 for i, v in enumerate(values)]
    length = math.sqrt(sum(v * v for v in values)) or 1.0
    return [struct.unpack("<f", struct.pack("<f", v / length))[0] for v in values]


def _inputs(body: dict[str, Any]) -> list[list[int]]:
    given = body.get("input")
    if isinstance(given, str):
        return [tokenizer.encode(given)]
    if isinstance(given, list) and given:
        if all(isinstance(i, int) for i in given):
            return [given]
        if all(isinstance(item, str) for item in given):
            return [tokenizer.encode(item) for item in given]
        if all(isinstance(item, list) and all(isinstance(i, int) for i in item) for item in given):
            return given
    raise schema_error("missing", "input", "Field required", body)


def embeddings(simulator: Simulator, body: dict[str, Any]) -> dict[str, Any]:
    """Returns the answer to /v1/embeddings, for models that serve it."""
    names = simulator.config.embedding_models
    name = body.get("model") or (names[0] if names else "")
    if name not in names:
        raise unknown_model(str(name))
    inputs = _inputs(body)
    dimensions = body.get("dimensions") or DIMENSIONS
    if not isinstance(dimensions, int) or not 1 <= dimensions <= 4096:
        raise schema_error("int_type", "dimensions", "Input should be a valid integer", dimensions)
    data = []
    for index, ids in enumerate(inputs):
        values: list[float] | str = vector(ids, dimensions)
        if body.get("encoding_format") == "base64":
            values = base64.b64encode(struct.pack(f"<{dimensions}f", *values)).decode()
        data.append({"index": index, "object": "embedding", "embedding": values})
    tokens = sum(map(len, inputs))
    return {
        "id": f"embd-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": name,
        "data": data,
        "usage": {
            "prompt_tokens": tokens,
            "total_tokens": tokens,
            "completion_tokens": 0,
            "prompt_tokens_details": None,
        },
    }
