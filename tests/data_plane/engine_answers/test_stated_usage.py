"""Usage that an engine states is believed as far as it can be true."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.data_plane.engine_answers.broken import IN_ONE_PIECE, ROLE, USAGE, WHOLE, Broken, chunk
from tests.data_plane.streamed import Streamed
from tests.support.wire import events, response


def stating(form: str, **usage: Any) -> bytes:
    """A good answer of two tokens to a prompt of three, and what the engine says that these were."""
    stated = USAGE | usage
    if form == "whole":
        return response(json.dumps(WHOLE | {"usage": stated}))
    if form == "on each chunk":
        return events(ROLE, chunk("a", 7, usage=stated), chunk("b", 8, end="stop", usage=stated), "[DONE]")
    last = json.dumps({"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": stated})
    return events(ROLE, chunk("a", 7), chunk("b", 8, end="stop"), last, "[DONE]")


@pytest.mark.parametrize("form", ["at the end", "on each chunk", "whole"])
@pytest.mark.parametrize("model", ["vllm", "openai"])
@pytest.mark.parametrize("stated", [2**63, 2**64 - 1, 2**64, 289_971, 10**30, 51])
def test_usage_is_believed_up_to_what_was_asked(broken: Broken, stated: int, model: str, form: str) -> None:
    """For the answer that is `max_tokens`, for the prompt a text's bytes and a template."""
    broken.engine.says(stating(form, completion_tokens=stated, prompt_tokens=stated, total_tokens=stated))
    more: dict[str, Any] = IN_ONE_PIECE if form == "whole" else {"stream": True}
    answer = broken.ask(model=model, max_tokens=50, **more)
    assert answer.status_code == 200
    prompt, completion = broken.billed(answer)
    assert completion <= 50
    assert prompt <= 4096 if model == "vllm" else prompt <= 20_000
    usage = answer.json()["usage"] if form == "whole" else Streamed(answer.content).usage
    if usage is not None:
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (prompt, completion)
        assert usage["total_tokens"] == prompt + completion
    if stated != 51:
        assert f'"request_id":"{answer.headers["x-request-id"]}"' in "".join(
            line for line in broken.gateway.output.splitlines() if "is not believed" in line
        )


@pytest.mark.parametrize("stated", [0, 1, -5, "2", 2.0, True, None, [], {}])
def test_usage_is_believed_down_to_what_was_seen(broken: Broken, stated: Any) -> None:
    """Token ids were told of the prompt and of the answer."""
    broken.engine.says(stating("at the end", completion_tokens=stated, prompt_tokens=stated))
    answer = broken.ask(stream=True, max_tokens=50)
    assert Streamed(answer.content).done
    assert broken.billed(answer) == (3, 2)


def test_no_more_of_a_prompt_was_cached_than_it_has(broken: Broken) -> None:
    broken.engine.says(stating("at the end", prompt_tokens_details={"cached_tokens": 2**63}))
    answer = broken.ask(stream=True)
    assert broken.logged(answer)["cached_tokens"] == 3
    told = [chunk["usage"] for chunk in Streamed(answer.content).chunks if chunk.get("usage")]
    assert told[-1]["prompt_tokens_details"]["cached_tokens"] == 3


def test_what_a_right_engine_states_is_believed(broken: Broken) -> None:
    broken.engine.says(stating("whole", completion_tokens=50, prompt_tokens=4000, total_tokens=4050))
    answer = broken.ask(max_tokens=50, **IN_ONE_PIECE)
    assert broken.billed(answer) == (4000, 50)
    line = [line for line in broken.gateway.output.splitlines() if answer.headers["x-request-id"] in line]
    assert not any("is not believed" in entry for entry in line)
