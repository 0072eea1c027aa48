"""The routes of vLLM that generate nothing: models, health, version, metrics, tokens, and embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from . import embed, template, tokenizer
from .errors import schema_error, unknown_model
from .generate import mix
from .json_body import read_json
from .vocabulary import PIECES

if TYPE_CHECKING:
    from .app import Simulator
    from .run import Sink

_JSON = b"application/json"
VERSION = "0.29.0"
_NOT_ALLOWED = b'{"detail":"Method Not Allowed"}'


def _card(simulator: Simulator, name: str) -> dict[str, Any]:
    created = simulator.started
    adapter = name in simulator.config.adapters
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "vllm",
        "root": name,
        "parent": simulator.config.models[0] if adapter else None,
        "max_model_len": None if adapter else simulator.config.max_model_len,
        "permission": [
            {
                "id": f"modelperm-{mix(len(name), *name.encode()):016x}",
                "object": "model_permission",
                "created": created,
                "allow_create_engine": False,
                "allow_sampling": True,
                "allow_logprobs": True,
                "allow_search_indices": False,
                "allow_view": True,
                "allow_fine_tuning": False,
                "organization": "*",
                "group": None,
                "is_blocking": False,
            }
        ],
    }


def _names(simulator: Simulator) -> tuple[str, ...]:
    config = simulator.config
    return (*config.models, *config.embedding_models, *config.adapters)


def _metrics(simulator: Simulator) -> bytes:
    stats = simulator.ledger.stats()
    label = f'{{engine="0",model_name="{simulator.config.models[0]}"}}'
    lines = []
    for name, kind, value in (
        ("vllm:num_requests_running", "gauge", stats["running"]),
        ("vllm:num_requests_waiting", "gauge", 0),
        ("vllm:kv_cache_usage_perc", "gauge", 0.0),
        ("vllm:prompt_tokens_total", "counter", stats["prompt_tokens_total"]),
        ("vllm:generation_tokens_total", "counter", stats["generated_tokens_total"]),
    ):
        lines += [f"# HELP {name} Simulated.", f"# TYPE {name} {kind}", f"{name}{label} {float(value)}"]
    return ("\n".join(lines) + "\n").encode()


def _model_known(simulator: Simulator, body: dict[str, Any]) -> None:
    name = body.get("model")
    if name and name not in _names(simulator):
        raise unknown_model(str(name))


def _tokenize(simulator: Simulator, body: dict[str, Any]) -> dict[str, Any]:
    _model_known(simulator, body)
    if isinstance(body.get("messages"), list):
        ids = template.render(
            body["messages"], body.get("tools"), add_generation_prompt=body.get("add_generation_prompt", True)
        )
    elif isinstance(body.get("prompt"), str):
        ids = tokenizer.encode(body["prompt"])
    else:
        raise schema_error("missing", "prompt", "Field required", body)
    texts = [PIECES[i].decode("utf-8", "replace") for i in ids] if body.get("return_token_strs") else None
    return {"count": len(ids), "max_model_len": simulator.config.max_model_len, "tokens": ids, "token_strs": texts}


def _detokenize(simulator: Simulator, body: dict[str, Any]) -> dict[str, Any]:
    _model_known(simulator, body)
    ids = body.get("tokens")
    if not isinstance(ids, list) or not all(isinstance(i, int) for i in ids) or tokenizer.unknown_id(ids) is not None:
        raise schema_error("list_type", "tokens", "Input should be a valid list", ids)
    return {"prompt": tokenizer.decode(ids, skip_special=False)}


_POSTS = {"/tokenize": _tokenize, "/detokenize": _detokenize, "/v1/embeddings": embed.embeddings}
_GETS = {"/v1/models", "/health", "/ping", "/version", "/metrics"}
_POST_ONLY = {*_POSTS, "/v1/chat/completions", "/v1/completions"}


def handle(
    simulator: Simulator, method: str, path: str, headers: Mapping[bytes, bytes], body: bytes, sink: Sink
) -> None:
    """Answers the request, or with 404 or 405 as FastAPI does."""
    if path == "/v1/embeddings" and not simulator.config.embedding_models:
        # An engine for generation has no such route.
        sink.reply(404, _JSON, b'{"detail":"Not Found"}')
    elif path in _POSTS and method == "POST":
        parsed = read_json(headers, body)
        if not isinstance(parsed, dict):
            raise schema_error("model_attributes_type", "", "Input should be a valid dictionary", parsed)
        sink.reply(200, _JSON, orjson.dumps(_POSTS[path](simulator, parsed)))
    elif path in _POST_ONLY:
        sink.reply(405, _JSON, _NOT_ALLOWED, ((b"allow", b"POST"),))
    elif path in _GETS and method != "GET" and path != "/ping":
        sink.reply(405, _JSON, _NOT_ALLOWED, ((b"allow", b"GET"),))
    elif path == "/v1/models":
        cards = [_card(simulator, name) for name in _names(simulator)]
        sink.reply(200, _JSON, orjson.dumps({"object": "list", "data": cards}))
    elif path in ("/health", "/ping"):
        sink.reply(503 if simulator.dead or simulator.draining else 200, b"", b"")
    elif path == "/version":
        sink.reply(200, _JSON, orjson.dumps({"version": VERSION}))
    elif path == "/metrics":
        sink.reply(200, b"text/plain; version=1.0.0; charset=utf-8", _metrics(simulator))
    else:
        sink.reply(404, _JSON, b'{"detail":"Not Found"}')
