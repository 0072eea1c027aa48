"""The body that an engine gets: the client's fields and what the platform sets itself."""

from __future__ import annotations

from typing import Any

import orjson
from openai_wire.requests import BadField

from ..catalog import ServedModel


def written(fields: dict[str, Any]) -> bytes:
    """Raises BadField for what is nested deeper than can be written again."""
    try:
        return orjson.dumps(fields)
    except orjson.JSONEncodeError as error:
        raise BadField(f"The request body cannot be passed on: {error}.", param=None, code="invalid_json") from error


def ask_for_figures(fields: dict[str, Any], model: ServedModel) -> None:
    """Asks the engine for a stream with all figures that billing needs."""
    fields["stream"] = True
    options = dict(fields.get("stream_options") or {})
    options["include_usage"] = True
    if model.speaks.token_ids:
        echoes = bool(fields.get("echo"))
        if not echoes:  # vLLM leaves the echoed prompt out when token ids are asked for
            fields["return_token_ids"] = True
        if echoes or fields.get("include_reasoning") is False:  # with hidden reasoning vLLM hides all token ids
            options["continuous_usage_stats"] = True
    fields["stream_options"] = options
