"""The known fields of generation requests: who may set each, and what it means for a continuation. No I/O.

This is the one table. `FIELDS` has a row for every field of vLLM 0.29's request models for chats, completions and
embeddings. It has one for each field of OpenAI that vLLM passes over, too. `PARTS` has a row for every field of a
content part.
`tests/e2e/test_request_fields.py` reads vLLM's own models and fails for a field without a row.

A continuation asks for the rest of a broken answer at /v1/completions. Its prompt is the token ids of the prompt and of
the answer so far. docs/failover.md explains what stands in its way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple


class Who(Enum):
    """The ones who may set a field."""

    CLIENT = "client"
    PLATFORM = "platform"  # the platform sets it, or keeps it for itself, because it decides over other tenants
    NOBODY = "nobody"  # it opens more of the engine than a caller should reach


class Continuation(Enum):
    """It says what happens to a field when a broken answer is continued."""

    CARRIED = "carried"  # both APIs have it, and it depends on the next token's logits or on all token ids so far
    DROPPED = "dropped"  # it makes the prompt, whose token ids are known by now, or has no effect on the answer
    ADJUSTED = "adjusted"  # `field_table.continued` gives it another value
    UNKNOWN = "unknown"  # nothing proves that it carries over, so it stands in the way


Test = Callable[[Any, Mapping[str, Any]], bool]


@dataclass(frozen=True, slots=True)
class Blocks:
    """The field stands in the way of a continuation where `test(value, all fields)` says so; `reason` is for the log.

    Such fields look at the answer's own tokens from its beginning, at something besides token ids, or have the engine
    read the answer's text.
    """

    test: Test
    reason: str


class Field(NamedTuple):
    who: Who
    continuation: Continuation | Blocks


def _set(value: Any, _: Mapping[str, Any]) -> bool:
    return bool(value)


def _beyond_one(value: Any, _: Mapping[str, Any]) -> bool:
    return bool(value != 1)


def _given(_value: Any, _: Mapping[str, Any]) -> bool:
    return True


def _not(harmless: Any) -> Test:
    return lambda value, _: bool(value != harmless)


_CLIENT, _PLATFORM, _NOBODY = Who.CLIENT, Who.PLATFORM, Who.NOBODY
_CARRIED, _DROPPED, _ADJUSTED, _UNKNOWN = (
    Continuation.CARRIED,
    Continuation.DROPPED,
    Continuation.ADJUSTED,
    Continuation.UNKNOWN,
)

FIELDS: Mapping[str, Field] = {
    # what is asked, and in which form the answer comes
    "model": Field(_CLIENT, _CARRIED),
    "messages": Field(_CLIENT, _DROPPED),
    "prompt": Field(_CLIENT, _DROPPED),
    "input": Field(_CLIENT, _UNKNOWN),
    "stream": Field(_CLIENT, _CARRIED),
    "stream_options": Field(_CLIENT, _CARRIED),
    "stream_interval": Field(_CLIENT, _CARRIED),
    "return_token_ids": Field(_CLIENT, _CARRIED),
    "return_tokens_as_token_ids": Field(_CLIENT, Blocks(_set, "tokens named by id")),
    "return_prompt_text": Field(_CLIENT, _DROPPED),
    "return_token_offsets": Field(_CLIENT, _DROPPED),
    "return_assistant_tokens_mask": Field(_CLIENT, _DROPPED),
    "routed_experts_prompt_start": Field(_CLIENT, Blocks(_set, "routed experts")),
    "n": Field(_CLIENT, Blocks(_beyond_one, "several choices")),
    "best_of": Field(_CLIENT, Blocks(_beyond_one, "several choices")),
    "echo": Field(_CLIENT, Blocks(_set, "echo")),
    "suffix": Field(_CLIENT, Blocks(_given, "suffix")),
    "modalities": Field(_CLIENT, Blocks(_not(["text"]), "audio")),
    "audio": Field(_CLIENT, Blocks(_given, "audio")),
    # how long it may become, and where it ends
    "max_tokens": Field(_CLIENT, _ADJUSTED),
    "max_completion_tokens": Field(_CLIENT, _ADJUSTED),
    "min_tokens": Field(_CLIENT, _ADJUSTED),
    "stop": Field(_CLIENT, _CARRIED),
    "stop_token_ids": Field(_CLIENT, _CARRIED),
    "include_stop_str_in_output": Field(_CLIENT, _CARRIED),
    "ignore_eos": Field(_CLIENT, _CARRIED),
    # how tokens are chosen
    "temperature": Field(_CLIENT, _CARRIED),
    "top_p": Field(_CLIENT, _CARRIED),
    "top_k": Field(_CLIENT, _CARRIED),
    "min_p": Field(_CLIENT, _CARRIED),
    "seed": Field(_CLIENT, _ADJUSTED),
    "repetition_penalty": Field(_CLIENT, _CARRIED),
    "presence_penalty": Field(_CLIENT, Blocks(_set, "presence penalty")),
    "frequency_penalty": Field(_CLIENT, Blocks(_set, "frequency penalty")),
    "length_penalty": Field(_CLIENT, _DROPPED),
    "use_beam_search": Field(_CLIENT, Blocks(_set, "beam search")),
    "logit_bias": Field(_CLIENT, _CARRIED),
    "allowed_token_ids": Field(_CLIENT, _CARRIED),
    "bad_words": Field(_CLIENT, Blocks(_set, "bad words")),
    "repetition_detection": Field(_CLIENT, Blocks(_given, "repetition detection")),
    # what is told of the tokens
    "logprobs": Field(_CLIENT, _ADJUSTED),
    "top_logprobs": Field(_CLIENT, _ADJUSTED),
    "prompt_logprobs": Field(_CLIENT, Blocks(_given, "prompt log probabilities")),
    "logprob_token_ids": Field(_CLIENT, Blocks(_given, "log probabilities of chosen tokens")),
    "skip_special_tokens": Field(_CLIENT, _CARRIED),
    "spaces_between_special_tokens": Field(_CLIENT, _CARRIED),
    # reasoning, tools and guided decoding
    "reasoning_effort": Field(_CLIENT, _DROPPED),
    "thinking_token_budget": Field(_CLIENT, Blocks(_given, "thinking budget")),
    "include_reasoning": Field(_CLIENT, Blocks(lambda value, _: not value, "hidden reasoning")),
    "response_format": Field(
        _CLIENT,
        Blocks(lambda value, _: not (isinstance(value, Mapping) and value.get("type") == "text"), "guided decoding"),
    ),
    "structured_outputs": Field(_CLIENT, Blocks(_given, "guided decoding")),
    "structural_tag": Field(_CLIENT, _UNKNOWN),
    "guided_json": Field(_CLIENT, _UNKNOWN),  # these of engines before vLLM 0.12
    "guided_regex": Field(_CLIENT, _UNKNOWN),
    "guided_choice": Field(_CLIENT, _UNKNOWN),
    "guided_grammar": Field(_CLIENT, _UNKNOWN),
    "guided_json_object": Field(_CLIENT, _UNKNOWN),
    "tools": Field(
        _CLIENT, Blocks(lambda value, fields: bool(value) and fields.get("tool_choice") != "none", "tool calls")
    ),
    "tool_choice": Field(_CLIENT, Blocks(_not("none"), "tool calls")),
    "parallel_tool_calls": Field(_CLIENT, _DROPPED),
    "functions": Field(_CLIENT, Blocks(_set, "tool calls")),
    "function_call": Field(_CLIENT, Blocks(_not("none"), "tool calls")),
    # how the prompt is made
    "add_generation_prompt": Field(_CLIENT, _DROPPED),
    "continue_final_message": Field(_CLIENT, _DROPPED),
    "add_special_tokens": Field(_CLIENT, _DROPPED),
    "documents": Field(_CLIENT, _DROPPED),
    "chat_template_kwargs": Field(_CLIENT, _DROPPED),
    "truncate_prompt_tokens": Field(_CLIENT, _DROPPED),
    "truncation_side": Field(_CLIENT, _DROPPED),
    # embeddings
    "encoding_format": Field(_CLIENT, _UNKNOWN),
    "dimensions": Field(_CLIENT, _UNKNOWN),
    "embed_dtype": Field(_CLIENT, _UNKNOWN),
    "endianness": Field(_CLIENT, _UNKNOWN),
    "use_activation": Field(_CLIENT, _UNKNOWN),
    "padding": Field(_CLIENT, _UNKNOWN),
    # OpenAI's own words, which vLLM passes over
    "user": Field(_CLIENT, _CARRIED),
    "session_id": Field(_CLIENT, _CARRIED),
    "metadata": Field(_CLIENT, _DROPPED),
    "store": Field(_CLIENT, _DROPPED),
    "service_tier": Field(_CLIENT, _DROPPED),
    "safety_identifier": Field(_CLIENT, _DROPPED),
    "prompt_cache_key": Field(_CLIENT, _DROPPED),
    "prompt_cache_retention": Field(_CLIENT, _DROPPED),
    "prediction": Field(_CLIENT, _DROPPED),
    "verbosity": Field(_CLIENT, _UNKNOWN),
    "web_search_options": Field(_CLIENT, _UNKNOWN),
    # the platform's: they decide over other callers' requests
    "priority": Field(_PLATFORM, _CARRIED),  # a caller would go before all others
    "cache_salt": Field(_PLATFORM, _CARRIED),  # tells whose prompts share the prefix cache
    "request_id": Field(_PLATFORM, _DROPPED),  # two requests with one id end each other
    # nobody's: they reach into the engine
    "kv_transfer_params": Field(_NOBODY, Blocks(_given, "KV transfer")),  # addresses of other engines' caches
    "ec_transfer_params": Field(_NOBODY, Blocks(_given, "KV transfer")),
    "vllm_xargs": Field(_NOBODY, Blocks(_set, "logits processors")),  # arguments of the engine's plugins
    "logits_processors": Field(_NOBODY, Blocks(_set, "logits processors")),  # names of Python functions
    "chat_template": Field(_NOBODY, _DROPPED),  # a program that the engine runs
    "mm_processor_kwargs": Field(_NOBODY, _DROPPED),  # sizes of pictures, and so the engine's memory
    "media_io_kwargs": Field(_NOBODY, _DROPPED),
    "prompt_embeds": Field(_NOBODY, Blocks(_given, "prompt embeddings")),  # tensors; a bad one ends the engine
}

PARTS: Mapping[str, Who] = {
    "type": _CLIENT,
    "text": _CLIENT,
    "refusal": _CLIENT,
    "thinking": _CLIENT,
    "closed": _CLIENT,
    "name": _CLIENT,
    "cache_control": _CLIENT,
    "prompt_cache_breakpoint": _CLIENT,
    "image_url": _CLIENT,
    "audio_url": _CLIENT,
    "video_url": _CLIENT,
    "input_audio": _CLIENT,
    "file": _CLIENT,
    "data": _CLIENT,  # belongs to `prompt_embeds`, which is looked at by its type
    "uuid": _NOBODY,  # names media in a cache that all callers share
    "image_pil": _NOBODY,
    "image_embeds": _NOBODY,  # tensors; a bad one ends the engine
    "audio_embeds": _NOBODY,
    "video_embeds": _NOBODY,
    "prompt_embeds": _NOBODY,
}
"""Fields of a content part. `image_embeds` and its like are also types of parts."""

CLIENTS = frozenset(name for name, field in FIELDS.items() if field.who is Who.CLIENT)
RESERVED = frozenset(FIELDS) - CLIENTS | frozenset(name for name, who in PARTS.items() if who is not Who.CLIENT)
"""A client may not set these fields, unless its model's `allowed_fields` names them."""
