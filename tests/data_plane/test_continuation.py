"""A stream that was cut anywhere and gone on with is the undisturbed one. The simulator generates; no gateway runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from cloudach_gateway.proxy.continuation.plan import CannotContinue, detokenize_body, kind_of, plan
from cloudach_gateway.proxy.engine.chunk import NotReproducible, has_text
from cloudach_gateway.proxy.stream.transcript import Transcript
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from openai_wire.sse import DONE, EventSplitter

from tests.support.stack import start_sim

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
CONTEXT = 400
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {}}}}}


@dataclass
class Engine:
    http: httpx.Client

    def __call__(self, path: str, body: bytes) -> list[bytes]:
        """The payloads of a stream, without [DONE]."""
        answer = self.http.post(path, content=body)
        assert answer.status_code == 200, answer.text
        payloads = EventSplitter().feed(answer.content)
        assert payloads[-1] == DONE
        return payloads[:-1]

    def text(self, body: bytes) -> str:
        text: str = self.http.post("/detokenize", content=body).json()["prompt"]
        return text


def engine(**options: Any) -> Iterator[Engine]:
    with (
        start_sim(flat=True, model="sim", max_model_len=CONTEXT, **options) as sim,
        httpx.Client(base_url=sim.url, headers={"content-type": "application/json"}, timeout=30) as client,
    ):
        yield Engine(client)


@pytest.fixture(scope="module")
def sim() -> Iterator[Engine]:
    yield from engine()


@pytest.fixture(scope="module")
def coarse_sim() -> Iterator[Engine]:
    """Several tokens an event, as an engine with speculative decoding, or one that is behind with its sending."""
    yield from engine(tokens_per_chunk=3)


@pytest.fixture(scope="module")
def plain_sim() -> Iterator[Engine]:
    """Without a tool parser, events may have no text."""
    yield from engine(tool_parser="none")


def chat(text: str = "Hello", **more: Any) -> dict[str, Any]:
    return {**_asked(more), "messages": [{"role": "user", "content": text}]}


def completion(prompt: Any = "Hello", **more: Any) -> dict[str, Any]:
    return {**_asked(more), "prompt": prompt}


def _asked(more: dict[str, Any]) -> dict[str, Any]:
    options = {"include_usage": True, **more.pop("stream_options", {})}
    return {"model": "sim", "stream": True, "stream_options": options, "return_token_ids": True, **more}


def path_of(fields: dict[str, Any]) -> str:
    return CHAT if "messages" in fields else COMPLETIONS


@dataclass
class Client:
    """What the client was sent, and what the gateway keeps of it."""

    payloads: list[bytes] = field(default_factory=list)
    transcript: Transcript = field(default_factory=Transcript)
    counted: int = 0

    def send(self, payload: bytes) -> None:
        self.payloads.append(payload)
        chunk = json.loads(payload)
        for holder in (chunk, *chunk["choices"]):
            if holder.get("prompt_token_ids"):
                self.transcript.prompt_ids = holder["prompt_token_ids"]
        if chunk["choices"]:
            self.transcript.recent.append(payload)
        for choice in chunk["choices"]:
            for token in choice.get("token_ids") or ():
                self.transcript.ids.extend(b"%d," % token)
                self.counted += 1

    def go_on(
        self, ask: Engine, fields: dict[str, Any], *, ids_shown: bool, asking: bool = False, events: int | None = None
    ) -> None:
        """With another engine, of which `events` arrive. asking: for the text of tokens that is not known."""
        kind, told = kind_of(path_of(fields)), None
        if asking and (body := detokenize_body(kind, fields, self.transcript, ids_shown=ids_shown)) is not None:
            told = ask.text(body)
        more = plan(kind, fields, self.transcript, ids_shown=ids_shown, max_model_len=CONTEXT, detokenized=told)
        if more.final is not None:
            self.send(more.final)
        if more.body is not None:
            stream = ask(more.path, more.body)[:events]
            if stream:
                self.counted -= more.take_over()
            for payload in stream:
                adapted = more.adapt(payload)
                if adapted is not None:
                    self.send(adapted)

    @property
    def ids(self) -> list[int]:
        return [int(number) for number in bytes(self.transcript.ids).split(b",")[:-1]]


def content(payloads: list[bytes], *, ids_shown: bool) -> dict[str, Any]:
    """All that a client can tell of a stream, apart from which token came with which event."""
    whole: dict[str, Any] = {"heads": set(), "roles": [], "text": "", "ids": [], "logprobs": [], "ends": []}
    usage = None
    for payload in payloads:
        chunk = json.loads(payload)
        whole["heads"].add((chunk["id"], chunk["object"], chunk["created"], chunk["model"]))
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            delta = choice.get("delta", {})
            if "role" in delta:
                whole["roles"].append((choice["index"], delta["role"]))
            whole["text"] += choice.get("text") or delta.get("content") or ""
            whole["ids"] += (choice.get("token_ids") or ()) if ids_shown else ()
            told = choice.get("logprobs") or {}
            whole["logprobs"] += told["content"] if "content" in told else zip(*told.values(), strict=True)
            if choice["finish_reason"] is not None:
                whole["ends"].append((choice["index"], choice["finish_reason"], choice["stop_reason"]))
    # Nothing is asked of an engine when only usage is missing: the gateway has counted.
    whole["usage"] = {name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    return whole


def check_every_cut(ask: Engine, fields: dict[str, Any], *, ids_shown: bool, asking: bool = False) -> dict[str, int]:
    """Cuts after each event; returns what stood in the way, and how often."""
    stream = ask(path_of(fields), json.dumps(fields).encode())
    expected = content(stream, ids_shown=ids_shown)
    ids = [token for p in stream for c in json.loads(p)["choices"] for token in c.get("token_ids") or ()]
    told: dict[str, int] = {}
    for cut in range(1, len(stream) + 1):
        client = Client()
        for payload in stream[:cut]:
            client.send(payload)
        try:
            client.go_on(ask, fields, ids_shown=ids_shown, asking=asking)
        except (CannotContinue, NotReproducible) as problem:
            told[str(problem)] = told.get(str(problem), 0) + 1
            continue
        if json.loads(client.payloads[-1])["choices"]:
            client.payloads.append(stream[-1])
        assert content(client.payloads, ids_shown=ids_shown) == expected, f"cut after {cut} of {len(stream)} events"
        assert client.ids == ids
        assert client.counted == len(ids)
    return told


def text_of(ask: Engine, fields: dict[str, Any]) -> str:
    return content(ask(path_of(fields), json.dumps(fields).encode()), ids_shown=False)["text"]


# Answers with characters in several tokens, by their prompts.
SPLIT = "Tell me of the sea 3"

REQUESTS: dict[str, dict[str, Any]] = {
    "chat": chat(SPLIT, max_tokens=70, temperature=0),
    "sampled chat": chat(SPLIT, max_tokens=70),
    "chat up to its context": chat("Hi", temperature=0, ignore_eos=True, stream_interval=9),
    "chat that ends by itself": chat("Tell me 0", temperature=0),
    "completion": completion(SPLIT, max_tokens=70, temperature=0),
    "completion of 16 tokens": completion(SPLIT, temperature=0),
    "completion of token ids": completion([72, 105, 240, 159], max_tokens=40, temperature=0),
    "no end before": chat("Tell me 0", max_tokens=110, min_tokens=90, temperature=0),
    "special tokens": chat(SPLIT, max_tokens=60, skip_special_tokens=False, ignore_eos=True, temperature=0),
    "stop token": completion(SPLIT, max_tokens=100, stop_token_ids=[46], min_tokens=12, temperature=0),
    "chat logprobs": chat(SPLIT, max_tokens=60, logprobs=True, temperature=0),
    "completion logprobs": completion(SPLIT, max_tokens=60, logprobs=3, temperature=0),
    "usage on every chunk": completion(
        SPLIT, max_tokens=30, temperature=0, stream_options={"continuous_usage_stats": True}
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("ids_shown", [False, True])
def test_cut_after_every_event(sim: Engine, name: str, ids_shown: bool) -> None:
    told = check_every_cut(sim, REQUESTS[name], ids_shown=ids_shown)
    if name == "sampled chat" and ids_shown:  # within a character, whose first tokens the client knows
        assert told.keys() == {"sampled tokens to come again"}
    else:
        assert told == {}


@pytest.mark.parametrize("name", ["chat", "sampled chat", "completion", "chat that ends by itself"])
def test_several_tokens_an_event(coarse_sim: Engine, name: str) -> None:
    told = check_every_cut(coarse_sim, REQUESTS[name], ids_shown=False)
    if name == "sampled chat":  # where the last event ends is not known: its tokens would have to be drawn again
        assert told.keys() == {"sampled text to come again"}
        told = check_every_cut(coarse_sim, REQUESTS[name], ids_shown=False, asking=True)
        assert told == {"sampled text to come again": 1}  # an event that ends within a character
    else:
        assert told == {}


def test_the_interval_that_the_request_asks_for(sim: Engine) -> None:
    assert (
        check_every_cut(sim, completion(SPLIT, max_tokens=70, temperature=0, stream_interval=5), ids_shown=True) == {}
    )


def test_without_a_tool_parser(plain_sim: Engine) -> None:
    assert check_every_cut(plain_sim, chat(SPLIT, max_tokens=70, temperature=0), ids_shown=False) == {}


@pytest.mark.parametrize("included", [False, True], ids=["held back", "included"])
@pytest.mark.parametrize("request_of", [chat, completion], ids=["chat", "completion"])
@pytest.mark.parametrize("at", [0, 1, 40, 90, 131])
@pytest.mark.parametrize("length", [1, 2, 9, 30])
def test_a_stop_string_across_the_cut(
    sim: Engine, request_of: Callable[..., dict[str, Any]], at: int, length: int, included: bool
) -> None:
    limits = {"max_tokens": 60, "temperature": 0, "include_stop_str_in_output": included}
    text = text_of(sim, request_of(SPLIT, **limits))
    fields = request_of(SPLIT, stop=[text[at : at + length], "\n\n\n"], **limits)
    assert text_of(sim, fields) == text[: text.find(fields["stop"][0]) + included * length]
    assert check_every_cut(sim, fields, ids_shown=False) == {}
    drawn = {**fields, "temperature": 1}  # the simulator draws the same: what matters is that nothing is drawn again
    assert check_every_cut(sim, drawn, ids_shown=False, asking=True) == {}


def test_a_stop_string_that_came_before_min_tokens(sim: Engine) -> None:
    limits = {"max_tokens": 80, "temperature": 0}
    text = text_of(sim, completion(SPLIT, **limits))
    fields = completion(SPLIT, stop=["e"], min_tokens=23, **limits)
    assert "e" in text_of(sim, fields)
    assert text_of(sim, fields) == text[: len(text_of(sim, fields))]
    assert check_every_cut(sim, fields, ids_shown=True) == {}


def test_stop_strings_with_several_tokens_an_event(coarse_sim: Engine) -> None:
    limits = {"max_tokens": 60, "temperature": 0}
    text = text_of(coarse_sim, chat(SPLIT, **limits))
    assert check_every_cut(coarse_sim, chat(SPLIT, stop=[text[120:131]], **limits), ids_shown=False) == {}


def test_log_probabilities_with_the_likeliest_tokens(sim: Engine) -> None:
    told = check_every_cut(sim, chat("Hello 1", max_tokens=60, logprobs=True, top_logprobs=3), ids_shown=False)
    assert told == {}


EVERYTHING = {
    "several choices": chat(n=2, max_tokens=12),
    "several prompts": completion(["one", "two"], max_tokens=12),
    "seeded sampling": chat(seed=7, max_tokens=12),
    "presence penalty": chat(presence_penalty=0.5, max_tokens=12),
    "frequency penalty": completion(frequency_penalty=-0.5, max_tokens=12),
    "guided decoding": chat(response_format={"type": "json_object"}),
    "tool calls": chat(tools=[TOOL], tool_choice="required"),
}


@pytest.mark.parametrize("reason", EVERYTHING)
def test_what_is_restarted_but_not_gone_on_with(sim: Engine, reason: str) -> None:
    fields = EVERYTHING[reason]
    stream = sim(path_of(fields), json.dumps(fields).encode())
    expected = content(stream, ids_shown=False)
    outcomes = []
    for cut in range(1, len(stream) - 1):
        client = Client()
        for payload in stream[:cut]:
            client.send(payload)
        try:
            client.go_on(sim, fields, ids_shown=False)
        except CannotContinue as problem:
            outcomes.append(problem.reason)
        else:
            outcomes.append("")
            assert content(client.payloads, ids_shown=False) == expected
            assert client.counted == expected["usage"]["completion_tokens"]
    visible = [any(has_text(choice) for choice in json.loads(payload)["choices"]) for payload in stream]
    begun = visible.index(True)
    assert outcomes == [""] * begun + [reason] * (len(outcomes) - begun)


@st.composite
def requests(draw: st.DrawFn) -> tuple[dict[str, Any], tuple[int, int]]:
    """Fields, and which part of the answer to take as a stop string."""
    make = draw(st.sampled_from([chat, completion]))
    limits = {"max_tokens": draw(st.integers(1, 90)), "temperature": draw(st.sampled_from([0, 1]))}
    more: dict[str, Any] = draw(
        st.sampled_from(
            [{}, {"logprobs": True if make is chat else 1}, {"min_tokens": 1}, {"skip_special_tokens": False}]
        )
    )
    included = draw(st.booleans())
    fields = make(f"Of {draw(st.integers(0, 50))}", **limits, **more, include_stop_str_in_output=included)
    return fields, draw(st.tuples(st.integers(0, 200), st.integers(0, 14)))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=requests(),
    cuts=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    ids_shown=st.booleans(),
    coarse=st.booleans(),
    asking=st.booleans(),
)
def test_cut_again_and_again(
    sim: Engine,
    coarse_sim: Engine,
    asked: tuple[dict[str, Any], tuple[int, int]],
    cuts: list[int],
    ids_shown: bool,
    coarse: bool,
    asking: bool,
) -> None:
    ask = coarse_sim if coarse else sim
    fields, (at, length) = asked
    if stop := text_of(ask, fields)[at : at + length]:
        fields = {**fields, "stop": stop}
    stream = ask(path_of(fields), json.dumps(fields).encode())
    client = Client()
    for payload in stream[: cuts[0] + 1]:
        client.send(payload)
    refused = ""
    try:
        for events in [*cuts[1:], None]:
            client.go_on(ask, fields, ids_shown=ids_shown, asking=asking, events=events)
    except CannotContinue as problem:
        refused = problem.reason
    event(f"refused: {refused}, coarse: {coarse}")
    if refused:
        known = ids_shown or bool(fields.get("logprobs"))
        allowed = {"no text yet", "sampled tokens to come again"} if known else set()
        allowed |= {"sampled text to come again"} if fields["temperature"] and (coarse or not asking) else set()
        assert refused in allowed
        return
    if json.loads(client.payloads[-1])["choices"]:
        client.payloads.append(stream[-1])
    got, expected = (content(payloads, ids_shown=ids_shown) for payloads in (client.payloads, stream))
    if coarse and path_of(fields) == COMPLETIONS:
        # An engine tells a character's tokens other offsets when they come in one event than when they come in two.
        for whole in (got, expected):
            whole["logprobs"] = [entry[1:] for entry in whole["logprobs"]]
    assert got == expected
    assert client.counted == content(stream, ids_shown=True)["usage"]["completion_tokens"]
