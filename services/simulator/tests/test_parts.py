"""Parts of a message that are no text."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import StartSim


def _with(part: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, part]}]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"image_url": {"url": "https://images.example.com/a.png"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "video_url", "video_url": {"url": "https://images.example.com/a.mp4"}},
    ],
)
async def test_media_are_refused_as_by_a_model_for_text(
    start_sim: StartSim, part: dict[str, Any], stream: bool
) -> None:
    sim = await start_sim(models=("smollm2", "other"))
    answer = await sim.chat(messages=_with(part), model="other", stream=stream)
    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "message": "smollm2 is not a multimodal model",
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    }


async def test_a_part_of_no_known_type(start_sim: StartSim) -> None:
    sim = await start_sim()
    answer = await sim.chat(messages=_with({"type": "nonsense"}))
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("Unsupported chat content part type: 'nonsense'. ")


async def test_several_texts_are_taken(start_sim: StartSim) -> None:
    sim = await start_sim()
    assert (await sim.chat(messages=_with({"type": "text", "text": "Tell me."}), max_tokens=1)).status_code == 200
