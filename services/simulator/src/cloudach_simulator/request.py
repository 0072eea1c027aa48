"""Reads and checks a request's body as vLLM does. The result is what the engine is asked for, or a refusal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from . import structured, template, tokenizer
from .errors import Refusal, bad_request, invalid, schema_error, unknown_model
from .sequence import Sampling
from .vocabulary import EOS

_MAX_N = 16384
_PARTS = {"text", "thinking", "input_text", "output_text", "refusal", "tool_reference"}
_MEDIA = {"input_image", "image_url", "image_embeds", "audio_embeds", "video_embeds", "image_pil"}
_MEDIA |= {"audio_url", "input_audio", "video_url"}

_MAX_LOGPROBS = 20  # vLLM's default for `--max-logprobs`


@dataclass(slots=True)
class Ask:
    """One request, read and checked."""

    chat: bool
    model: str
    prompts: list[list[int]]
    sampling: Sampling
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    return_token_ids: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    echo: bool = False
    echo_text: list[str] = field(default_factory=list)
    echo_only: bool = False
    interval: int = 1
    """Tokens per chunk (`stream_interval`)."""
    parser: bool = False
    """A tool parser reads the text. It drops empty deltas even where there are no tools."""
    tools: str = "none"
    """The kind of the tool choice: `none`, `auto`, `required` or `named`."""
    adapter: str | None = None
    """The LoRA adapter that was asked for."""
    prompt_details: bool = False
    """Usage names the cached tokens."""
    request_id: str | None = None
    cache_salt: str | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    fault: str | None = None


@dataclass(slots=True, frozen=True)
class Limits:
    """The settings of the server against which a request is checked."""

    models: tuple[str, ...]
    max_model_len: int
    tool_parser: str = "hermes"
    """`hermes`: it reads every chat, as where Ray Serve LLM runs vLLM. `none`: requests with tools are refused."""
    adapters: tuple[str, ...] = ()


def _number(body: dict[str, Any], name: str, kind: type[int] | type[float], default: Any) -> Any:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool):
        return kind(value)
    if isinstance(value, int) or (isinstance(value, float) and (kind is float or value.is_integer())):
        return kind(value)
    word = "integer" if kind is int else "number"
    if isinstance(value, str):
        try:
            return kind(value)
        except ValueError:
            message = f"Input should be a valid {word}, unable to parse string as a{'n' if kind is int else ''} {word}"
            raise schema_error(f"{kind.__name__}_parsing", name, message, value) from None
    if isinstance(value, float):
        message = "Input should be a valid integer, got a number with a fractional part"
        raise schema_error("int_from_float", name, message, value)
    raise schema_error(f"{kind.__name__}_type", name, f"Input should be a valid {word}", value)


def _flag(body: dict[str, Any], name: str, default: bool = False) -> bool:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool):
        return value
    if value in (0, 1):
        return bool(value)
    if isinstance(value, str):
        word = value.lower()
        if word in ("true", "t", "yes", "y", "on", "1"):
            return True
        if word in ("false", "f", "no", "n", "off", "0"):
            return False
        raise schema_error("bool_parsing", name, "Input should be a valid boolean, unable to interpret input", value)
    raise schema_error("bool_type", name, "Input should be a valid boolean", value)


def _text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise schema_error("string_type", name, "Input should be a valid string", value)
    return value


def _model(body: dict[str, Any], limits: Limits) -> str:
    # vLLM checks the name only after it has validated the whole body, and so does the caller.
    name = _text(body, "model")
    if name and name in limits.adapters:
        return name
    if name and name not in limits.models:
        raise unknown_model(name)
    # Answers carry the first served name, whichever alias was asked for.
    return limits.models[0]


def _stops(body: dict[str, Any]) -> tuple[str, ...]:
    value = body.get("stop")
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(s, str) for s in stops):
        raise schema_error("string_type", "stop", "Input should be a valid string", value)
    if any(not s for s in stops):
        raise invalid("stop cannot contain an empty string.")
    return tuple(stops)


def _ints(body: dict[str, Any], name: str) -> list[int]:
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise schema_error("list_type", name, "Input should be a valid list", value)
    if not all(isinstance(i, int) and not isinstance(i, bool) for i in value):
        raise schema_error("int_type", name, "Input should be a valid integer", value)
    return value


def _stream_options(body: dict[str, Any], stream: bool) -> tuple[bool, bool]:
    options = body.get("stream_options")
    if not options:
        return False, False
    if not stream:
        raise invalid("Stream options can only be defined when `stream=True`.", "stream_options")
    if not isinstance(options, dict):
        message = "Input should be a valid dictionary or instance of StreamOptions"
        raise schema_error("model_attributes_type", "stream_options", message, options)
    usage = _flag(options, "include_usage")
    return usage, usage and _flag(options, "continuous_usage_stats")


def _check_ranges(body: dict[str, Any], n: int, temperature: float, max_tokens: int, min_tokens: int) -> None:
    if n < 1:
        raise invalid(f"n must be at least 1, got {n}.")
    if n > _MAX_N:
        raise invalid(
            f"n must be at most {_MAX_N}, got {n}. To increase this limit, set the VLLM_MAX_N_SEQUENCES "
            "environment variable."
        )
    for name in ("presence_penalty", "frequency_penalty"):
        value = _number(body, name, float, 0.0)
        if not -2.0 <= value <= 2.0:
            raise invalid(f"{name} must be in [-2, 2], got {value}.")
    if _number(body, "repetition_penalty", float, 1.0) <= 0:
        raise invalid(f"repetition_penalty must be greater than zero, got {float(body['repetition_penalty'])}.")
    if temperature < 0:
        raise invalid(f"temperature must be non-negative, got {temperature}.", "temperature", temperature)
    if temperature > 2:
        raise invalid(f"temperature must be in [0, 2], got {temperature}.", "temperature", temperature)
    top_p = _number(body, "top_p", float, 1.0)
    if not 0 < top_p <= 1:
        raise invalid(f"top_p must be in (0, 1], got {top_p}.", "top_p", top_p)
    top_k = _number(body, "top_k", int, 0)
    if top_k < -1:
        raise invalid(f"top_k must be 0 (disable), or at least 1, got {top_k}.")
    if max_tokens < 1:
        raise invalid(f"max_tokens must be at least 1, got {max_tokens}.", "max_tokens", max_tokens)
    if min_tokens < 0:
        raise invalid(f"min_tokens must be greater than or equal to 0, got {min_tokens}.")
    if min_tokens > max_tokens:
        raise invalid(f"min_tokens must be less than or equal to max_tokens={max_tokens}, got {min_tokens}.")
    if temperature < 1e-5 and n > 1:
        raise invalid(f"n must be 1 when using greedy sampling, got {n}.")


def _room(prompt: list[int], asked: int | None, name: str, limits: Limits, *, text: bool) -> int:
    """Returns how many tokens may be generated. Refuses a prompt that does not fit."""
    size = limits.max_model_len
    wanted = asked or 0
    if wanted > size:
        raise invalid(
            f"{name}={wanted} cannot be greater than max_model_len=max_total_tokens={size}. "
            "Please request fewer output tokens.",
            name,
            wanted,
        )
    count = len(prompt)
    if not count:
        raise invalid("The decoder prompt cannot be empty")
    if count > size - wanted:
        if text:
            # vLLM stops tokenizing text one token past the limit.
            count = size - wanted + 1
        about = "at least " if count == size - wanted + 1 else ""
        raise invalid(
            f"This model's maximum context length is {size} tokens. However, you requested {wanted} output tokens and "
            f"your prompt contains {about}{count} input tokens, for a total of {about}{count + wanted} tokens. "
            "Please reduce the length of the input prompt or the number of requested output tokens.",
            "input_tokens",
            count,
        )
    bad = tokenizer.unknown_id(prompt)
    if bad is not None:
        raise invalid(f"Token id {bad} is out of vocabulary")
    if count == size:
        raise invalid(
            f"The decoder prompt (length {count}) plus the number of requested output tokens (at least 1) is longer "
            f"than the maximum model length of {size}. Make sure that `max_model_len` is no smaller than the number "
            "of text tokens (prompt + requested output tokens)."
        )
    return size - count if asked is None else min(asked, size - count)


def _sampling(
    body: dict[str, Any], max_tokens: int, n: int, logprobs: int | None, script: tuple[int, ...] | None
) -> Sampling:
    temperature = _number(body, "temperature", float, 1.0)
    min_tokens = _number(body, "min_tokens", int, 0)
    _check_ranges(body, n, temperature, max_tokens, min_tokens)
    seed = _number(body, "seed", int, None)
    return Sampling(
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        ignore_eos=_flag(body, "ignore_eos"),
        stop=_stops(body),
        stop_token_ids=frozenset(_ints(body, "stop_token_ids")),
        include_stop=_flag(body, "include_stop_str_in_output"),
        skip_special=_flag(body, "skip_special_tokens", True),
        seed=seed if seed is not None and seed != -1 and temperature >= 1e-5 else None,
        penalised=bool(_number(body, "frequency_penalty", float, 0.0) or _number(body, "presence_penalty", float, 0.0)),
        script=script,
        top_logprobs=logprobs,
    )


def _messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    if "messages" not in body:
        raise schema_error("missing", "messages", "Field required", body)
    messages = body["messages"]
    if not isinstance(messages, list):
        raise schema_error("list_type", "messages", "Input should be a valid list", messages)
    for message in messages:
        if not isinstance(message, dict):
            raise schema_error("dict_type", "messages", "Input should be a valid dictionary", message)
        if not isinstance(message.get("role"), str):
            raise schema_error("missing", "messages", "Field required", message)
        content = message.get("content")
        if content is not None and not isinstance(content, str | list):
            raise schema_error("string_type", "messages", "Input should be a valid string", content)
    return messages


def _check_parts(messages: list[dict[str, Any]], limits: Limits) -> None:
    """Refuses parts that are no text, as a model for text does."""
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if not isinstance(part, dict):
                continue
            kind = part.get("type")
            if not isinstance(kind, str | None):
                raise schema_error("string_type", "messages", "Input should be a valid string", kind)
            if kind in _MEDIA or (kind is None and not _MEDIA.isdisjoint(part)):
                raise bad_request(f"{limits.models[0]} is not a multimodal model")
            if kind == "prompt_embeds":
                raise bad_request("You must set `--enable-prompt-embeds` to input `prompt_embeds`")
            if kind is not None and kind not in _PARTS:
                supported = ", ".join(sorted(_PARTS | _MEDIA | {"prompt_embeds"}))
                message_text = f"Unsupported chat content part type: {kind!r}. Supported types: {supported}."
                raise invalid(message_text, "type", kind)


def _chat_logprobs(body: dict[str, Any]) -> int | None:
    top = body.get("top_logprobs")
    if top is not None and not isinstance(top, int | float):
        raise invalid("`top_logprobs` must be an integer.", "top_logprobs", top)
    wanted = _flag(body, "logprobs")
    if top is not None:
        if top < 0 and top != -1:
            raise invalid("`top_logprobs` must be a positive value or -1.", "top_logprobs", top)
        if (top == -1 or top > 0) and not wanted:
            raise invalid("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs")
    return int(top or 0) if wanted else None


def _prompt_logprobs(body: dict[str, Any], stream: bool) -> int | None:
    top = body.get("prompt_logprobs")
    if top is None:
        return None
    if not isinstance(top, int | float):
        raise invalid("`prompt_logprobs` must be an integer.", "prompt_logprobs", top)
    if stream and (top > 0 or top == -1):
        raise invalid("`prompt_logprobs` are not available when `stream=True`.", "prompt_logprobs")
    if top < 0 and top != -1:
        raise invalid("`prompt_logprobs` must be a positive value or -1.", "prompt_logprobs", top)
    return int(top)


def _finish(ask: Ask, body: dict[str, Any]) -> Ask:
    ask.return_token_ids = _flag(body, "return_token_ids")
    ask.prompt_logprobs = _prompt_logprobs(body, ask.stream)
    for kind, top in (("sample", ask.logprobs), ("prompt", ask.prompt_logprobs)):
        if top is not None and top > _MAX_LOGPROBS:
            raise invalid(f"Requested {kind} logprobs of {top}, which is greater than max allowed: {_MAX_LOGPROBS}")
    ask.echo = _flag(body, "echo")
    ask.interval = _number(body, "stream_interval", int, 1)
    if ask.interval < 1:
        message = "Input should be greater than or equal to 1"
        raise schema_error("greater_than_equal", "stream_interval", message, ask.interval)
    ask.request_id = _text(body, "request_id")
    ask.cache_salt = _text(body, "cache_salt")
    ask.temperature = _number(body, "temperature", float, 1.0)
    ask.top_p = _number(body, "top_p", float, 1.0)
    ask.fault = _text(body, "sim_fault")
    return ask


def read_chat(body: dict[str, Any], limits: Limits) -> Ask:
    """Reads a body of /v1/chat/completions."""
    stream = _flag(body, "stream")
    usage, continuous = _stream_options(body, stream)
    logprobs = _chat_logprobs(body)
    messages = _messages(body)
    choice = structured.tool_choice(body)
    tools = body.get("tools")
    continue_final = _flag(body, "continue_final_message")
    if continue_final and body.get("add_generation_prompt"):
        raise invalid("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
    name = "max_tokens" if body.get("max_completion_tokens") is None else "max_completion_tokens"
    asked = _number(body, name, int, None)
    n = _number(body, "n", int, 1)
    guided = structured.guided_text(body)
    model = _model(body, limits)
    if choice.kind != "none" and limits.tool_parser == "none":
        if choice.kind == "auto":
            raise bad_request('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set')
        called = f'function "{choice.name}"' if choice.kind == "named" else '"required"'
        raise bad_request(f"tool_choice={called} requires --tool-call-parser to be set")
    if body.get("chat_template") is not None:
        raise bad_request(
            "Chat template is passed with request, but --trust-request-chat-template is not set. "
            "Refused request with untrusted chat template."
        )
    if not messages:
        raise bad_request("list index out of range")
    _check_parts(messages, limits)
    prompt = template.render(
        messages,
        tools if choice.kind != "none" else None,
        add_generation_prompt=_flag(body, "add_generation_prompt", True),
        continue_final_message=continue_final,
    )
    room = _room(prompt, asked, name, limits, text=True)
    text = structured.tool_text(tools or [], choice.name) if choice.kind in ("required", "named") else guided
    script = None if text is None else (*tokenizer.encode(text), EOS)
    if script is None:
        script = structured.scripted_call(prompt)
    ask = Ask(
        chat=True,
        model=model,
        prompts=[prompt],
        sampling=_sampling(body, room, n, logprobs, script),
        n=n,
        stream=stream,
        include_usage=usage,
        continuous_usage=continuous,
        logprobs=logprobs,
        parser=limits.tool_parser != "none",
        tools=choice.kind,
    )
    _finish(ask, body)
    if ask.echo and messages[-1]["role"] == "assistant":
        ask.echo_text = [template.content_text(messages[-1].get("content"))]
    return ask


def _prompts(body: dict[str, Any]) -> tuple[list[list[int]], list[str | None]]:
    prompt = body.get("prompt")
    if prompt is None or prompt == "":
        raise invalid("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    items = prompt if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else [prompt]
    ids: list[list[int]] = []
    for item in items:
        if isinstance(item, str):
            ids.append(tokenizer.encode(item))
        elif isinstance(item, list) and all(isinstance(i, int) and not isinstance(i, bool) for i in item):
            ids.append(item)
        else:
            raise schema_error("string_type", "prompt", "Input should be a valid string", prompt)
    texts = [item if isinstance(item, str) else None for item in items]
    return ids, texts


def read_completion(body: dict[str, Any], limits: Limits) -> Ask:
    """Reads a body of /v1/completions."""
    stream = _flag(body, "stream")
    usage, continuous = _stream_options(body, stream)
    logprobs = body.get("logprobs")
    if logprobs is not None:
        if not isinstance(logprobs, int | float):
            raise invalid("`logprobs` must be an integer.", "logprobs", logprobs)
        if logprobs < 0 and logprobs != -1:
            raise invalid("`logprobs` must be a positive value or -1.", "logprobs", logprobs)
        logprobs = int(logprobs)
    prompts, texts = _prompts(body)
    asked = _number(body, "max_tokens", int, 16)
    n = _number(body, "n", int, 1)
    guided = structured.guided_text(body)
    model = _model(body, limits)
    if body.get("suffix") is not None:
        raise bad_request("suffix is not currently supported")
    echo = _flag(body, "echo")
    echo_only = echo and asked == 0
    rooms = [
        _room(ids, asked, "max_tokens", limits, text=text is not None) for ids, text in zip(prompts, texts, strict=True)
    ]
    script = None if guided is None else (*tokenizer.encode(guided), EOS)
    if script is None and len(prompts) == 1:
        script = structured.scripted_call(prompts[0])
    room = 1 if echo_only else min(rooms)
    ask = Ask(
        chat=False,
        model=model,
        prompts=prompts,
        sampling=_sampling(body, room, n, logprobs, script),
        n=n,
        stream=stream,
        include_usage=usage,
        continuous_usage=continuous,
        logprobs=logprobs,
    )
    _finish(ask, body)
    ask.echo_only = echo_only
    if ask.echo:
        ask.echo_text = [
            "" if ask.return_token_ids else text or tokenizer.decode(ids, skip_special=False)
            for text, ids in zip(texts, prompts, strict=True)
        ]
    return ask


def read(path: str, body: object, limits: Limits) -> Ask:
    """Reads a parsed JSON body of one of the two generating routes."""
    if not isinstance(body, dict):
        message = "Input should be a valid dictionary or object to extract fields from"
        detail = {"type": "model_attributes_type", "loc": ("body",), "msg": message, "input": body}
        raise Refusal(
            400,
            {
                "error": {
                    "message": f"1 validation error:\n  {detail}",
                    "type": "Bad Request",
                    "param": "body",
                    "code": 400,
                }
            },
        )
    ask = read_chat(body, limits) if path == "/v1/chat/completions" else read_completion(body, limits)
    ask.adapter = ask.model if ask.model in limits.adapters else None
    return ask
