"""A request's answer. Its sequences are stepped together, as in an engine, and sent as events or as one body."""

from __future__ import annotations

from typing import Any

from . import logprobs, tokenizer, toolcalls, wire
from .generate import start_state
from .request import Ask
from .sequence import Output, Sequence
from .vocabulary import PIECES


class Answer:
    """The sequences of one request. It is the base of both kinds of answers, and sends nothing itself."""

    def __init__(self, ask: Ask, request_id: str, created: int) -> None:
        self.ask = ask
        self.id = f"{'chatcmpl' if ask.chat else 'cmpl'}-{request_id}"
        self.created = created
        self.prompt_tokens = sum(map(len, ask.prompts))
        self.sequences: list[Sequence] = []
        for prompt in ask.prompts:
            state = start_state(prompt, ask.adapter)
            tail = tokenizer.unfinished(prompt, skip_special=ask.sampling.skip_special)
            self.sequences += [Sequence(ask.sampling, state, prompt[-1], tail, i) for i in range(ask.n)]

    @property
    def generated(self) -> int:
        """How many tokens have been generated so far, over all choices."""
        return sum(sequence.count for sequence in self.sequences)

    @property
    def depth(self) -> int:
        """How many steps there were so far, which is the tokens of the longest choice."""
        return max(sequence.count for sequence in self.sequences)

    @property
    def finished(self) -> bool:
        """Tells that every choice has ended."""
        return all(sequence.finished for sequence in self.sequences)

    def _prompt(self, index: int) -> list[int]:
        return self.ask.prompts[index // self.ask.n]

    def _logprobs(self, index: int, out: Output, offset: int, echoed: bool) -> dict[str, Any] | None:
        ask = self.ask
        if ask.logprobs is None:
            return None
        if ask.chat:
            return logprobs.chat(out.states, out.ids, ask.logprobs)
        prompt = self._prompt(index) if echoed else []
        if ask.echo_only:
            return logprobs.completion([], [], ask.logprobs, offset, prompt)
        return logprobs.completion(out.states, out.ids, ask.logprobs, offset, prompt)

    def _prompt_logprobs(self, index: int) -> list[Any] | None:
        top = self.ask.prompt_logprobs
        return None if top is None else logprobs.prompt(self._prompt(index), top)


class WholeAnswer(Answer):
    """An answer that is sent at its end."""

    def __init__(self, ask: Ask, request_id: str, created: int) -> None:
        super().__init__(ask, request_id, created)
        self._outputs = [Output("", []) for _ in self.sequences]
        self._texts: list[list[str]] = [[] for _ in self.sequences]

    told = False

    @property
    def sent(self) -> int:
        """How many tokens were sent: all or none."""
        return self.generated if self.told else 0

    def advance(self, steps: int) -> None:
        """Generates up to `steps` tokens of every choice."""
        for sequence, total, texts in zip(self.sequences, self._outputs, self._texts, strict=True):
            left = steps
            while left > 0 and not sequence.finished:
                if sequence.plain and (ids := sequence.many(left)):
                    texts.append(b"".join([PIECES[token] for token in ids]).decode())
                    total.ids += ids
                    left -= len(ids)
                    continue
                out = sequence.step(1 if sequence.plain else left)
                left -= len(out.ids)
                # They are joined at the end, because appending to a long string again and again takes quadratic time.
                texts.append(out.text)
                out.text = ""
                total.merge(out)

    def abort(self) -> None:
        """Ends every choice here."""
        for sequence, total, texts in zip(self.sequences, self._outputs, self._texts, strict=True):
            if not sequence.finished:
                out = sequence.abort()
                texts.append(out.text)
                out.text = ""
                total.merge(out)

    def body(self) -> bytes:
        """Returns the JSON body."""
        ask = self.ask
        for total, texts in zip(self._outputs, self._texts, strict=True):
            total.text = "".join(texts)
            texts[:] = [total.text]
        completion = self.generated
        if ask.chat:
            choices = [self._chat_choice(i, out) for i, out in enumerate(self._outputs)]
            ids = ask.prompts[0] if ask.return_token_ids else None
            return wire.chat_body(
                *(self.id, self.created, ask.model, choices, self.prompt_tokens, completion, ids),
                prompt_logprobs=self._prompt_logprobs(0),
                details=ask.prompt_details,
            )
        choices = [self._text_choice(i, out) for i, out in enumerate(self._outputs)]
        return wire.text_body(
            *(self.id, self.created, ask.model, choices, self.prompt_tokens, completion), details=ask.prompt_details
        )

    def _chat_choice(self, index: int, out: Output) -> dict[str, Any]:
        ask = self.ask
        content, calls = toolcalls.whole(out.text) if ask.tools != "none" else (out.text, [])
        reason = out.finish_reason
        if ask.tools in ("required", "named"):
            content = content or ""
        if (ask.tools == "auto" and calls) or (ask.tools == "required" and reason == "stop"):
            reason = "tool_calls"
        if ask.echo_text:
            content = ask.echo_text[0] + (content or "")
        ids = out.ids if ask.return_token_ids else None
        return wire.chat_choice(
            index, content, calls, reason, out.stop_reason, ids, self._logprobs(index, out, 0, False)
        )

    def _text_choice(self, index: int, out: Output) -> dict[str, Any]:
        ask = self.ask
        text = out.text
        if ask.echo:
            text = ask.echo_text[index // ask.n] + ("" if ask.echo_only else text)
        return wire.text_choice(
            index,
            text,
            out.finish_reason,
            out.stop_reason,
            out.ids if ask.return_token_ids else None,
            self._prompt(index) if ask.return_token_ids else None,
            self._logprobs(index, out, 0, ask.echo),
            self._prompt_logprobs(index),
        )


class StreamAnswer(Answer):
    """An answer that is sent as it comes, in server-sent events."""

    def __init__(self, ask: Ask, request_id: str, created: int) -> None:
        super().__init__(ask, request_id, created)
        self._frame = wire.Frame(ask.chat, self.id, created, ask.model)
        self._parsers = [toolcalls.DeltaParser(ask.tools != "none") if ask.parser else None for _ in self.sequences]
        self._waiting: list[Output | None] = [None] * len(self.sequences)
        self._told = [False] * len(self.sequences)
        self._offsets = [0] * len(self.sequences)
        self._opened = False
        self._single: Sequence | None = None
        self.complete = False
        self._plain = (
            len(self.sequences) == 1
            and self.sequences[0].plain
            and ask.tools == "none"
            and ask.interval == 1
            and not ask.continuous_usage
            and not ask.echo
        )
        tails = wire.CHAT_TAILS if ask.chat else wire.TEXT_TAILS
        self._tails = tails[ask.return_token_ids]
        self._head = self._frame.head(0)

    @property
    def sent(self) -> int:
        """How many tokens were sent."""
        return self.generated - sum(len(out.ids) for out in self._waiting if out)

    def events(self, chunks: int, tokens: int | None = None) -> list[bytes]:
        """Returns the next events: up to `chunks` chunks of every choice, with at most `tokens` tokens of each."""
        out: list[bytes] = []
        if not self._opened:
            self._open(out)
        if any(self._waiting):
            self._flush(out)
        while chunks > 0 and not self.finished and tokens != 0:
            if self._plain and self._told[0]:
                ids = self.sequences[0].many(chunks if tokens is None else min(chunks, tokens))
                head, tails = self._head, self._tails
                out += [head + tails[token] for token in ids]
                chunks -= len(ids)
                tokens = None if tokens is None else tokens - len(ids)
                if chunks <= 0 or tokens == 0:
                    break
            chunks -= 1
            width = self.ask.interval if self._told[0] else 1
            if tokens is not None:
                width = min(width, tokens)
                tokens -= width
            self.skip(width)
            self._flush(out)
        if self.finished and not self.complete:
            self._close(out)
        return out

    def aborted(self) -> list[bytes]:
        """Returns the last events if every choice ends here."""
        out: list[bytes] = []
        if not self._opened:
            self._open(out)
        for index, sequence in enumerate(self.sequences):
            if not sequence.finished:
                self._merge(index, sequence.abort())
        self._flush(out)
        self._close(out)
        return out

    def one(self) -> bytes | None:
        """Returns the next event if it is a plain chunk of one simple token; None if `events` has to make it."""
        token = self._single.one() if self._single is not None else None
        return None if token is None else self._head + self._tails[token]

    def skip(self, tokens: int) -> None:
        """Generates without sending. Tokens that the client takes late become one chunk, as in vLLM."""
        for index, sequence in enumerate(self.sequences):
            if not sequence.finished:
                self._single = None
                self._merge(index, sequence.step(tokens))

    def _merge(self, index: int, new: Output) -> None:
        waiting = self._waiting[index]
        if waiting is None:
            self._waiting[index] = new
        else:
            waiting.merge(new)

    def _open(self, out: list[bytes]) -> None:
        self._opened = True
        ask = self.ask
        if not ask.chat:
            return
        for index in range(len(self.sequences)):
            delta = {"role": "assistant", "content": ""}
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
            ids = ask.prompts[0] if ask.return_token_ids else None
            out.append(self._frame.chunk(choice, **self._running_usage(0), prompt_token_ids=ids, prompt_text=None))
        if ask.echo_text and ask.echo_text[0]:
            for index in range(len(self.sequences)):
                delta = {"content": ask.echo_text[0]}
                choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
                out.append(self._frame.chunk(choice, **self._running_usage(0)))

    def _close(self, out: list[bytes]) -> None:
        self.complete = True
        if self.ask.include_usage:
            details = {"prompt_tokens_details": wire.NOT_CACHED} if self.ask.prompt_details else {}
            out.append(self._frame.usage(wire.usage_fields(self.prompt_tokens, self.generated, **details)))
        out.append(wire.DONE)

    def _running_usage(self, completion: int, index: int = 0) -> dict[str, Any]:
        if not self.ask.continuous_usage:
            return {}
        prompt = len(self._prompt(index))
        if self.ask.chat:
            return {"usage": wire.usage_fields(prompt, completion, completion_tokens_details=None)}
        return {"usage": wire.usage_fields(prompt, completion)}

    def _flush(self, out: list[bytes]) -> None:
        for index, waiting in enumerate(self._waiting):
            if waiting is not None:
                self._waiting[index] = None
                choice = self._chat_chunk(index, waiting) if self.ask.chat else self._text_chunk(index, waiting)
                self._told[index] = True
                if self._plain:
                    self._single = self.sequences[0]
                if choice is None:
                    continue
                rest = self._running_usage(self.sequences[index].count, index)
                if waiting.finish_reason and not self.ask.include_usage:
                    rest["system_fingerprint"] = wire.FINGERPRINT
                out.append(self._frame.chunk(choice, **rest))

    def _chat_chunk(self, index: int, new: Output) -> dict[str, Any] | None:
        ask = self.ask
        parser = self._parsers[index]
        delta: dict[str, Any] | None = {"content": new.text}
        if parser is not None:
            delta = parser.feed(new.text)
            if delta is None:
                if new.finish_reason is None and not ask.return_token_ids:
                    return None
                delta = {}
        choice: dict[str, Any] = {
            "index": index,
            "delta": delta,
            "logprobs": self._logprobs(index, new, 0, False),
            "finish_reason": new.finish_reason,
        }
        if new.finish_reason:
            if parser is not None and parser.called and ask.tools != "named":
                choice["finish_reason"] = "tool_calls"
            choice["stop_reason"] = new.stop_reason
        choice["token_ids"] = new.ids if ask.return_token_ids else None
        return choice

    def _text_chunk(self, index: int, new: Output) -> dict[str, Any]:
        ask = self.ask
        first = not self._told[index]
        text = new.text
        echoed = ask.echo and first
        if echoed:
            text = ask.echo_text[index // ask.n] + ("" if ask.echo_only else text)
        offset = self._offsets[index]
        self._offsets[index] += len(text)
        return {
            "index": index,
            "text": text,
            "logprobs": self._logprobs(index, new, offset, echoed),
            "finish_reason": new.finish_reason,
            "stop_reason": new.stop_reason,
            "prompt_token_ids": self._prompt(index) if first and (ask.return_token_ids or echoed) else None,
            "token_ids": new.ids if ask.return_token_ids else None,
        }
