"""LoRA adapters of the simulator, as vLLM serves them: models of their own beside the base."""

from __future__ import annotations

from typing import Any

from .conftest import Sim, StartSim


async def text(sim: Sim, **fields: Any) -> tuple[str, str]:
    answer = (await sim.chat(max_tokens=20, **fields)).json()
    return answer["model"], answer["choices"][0]["message"]["content"]


async def test_each_says_something_else_and_the_base_what_it_always_says(start_sim: StartSim) -> None:
    plain = await start_sim(rate=0.0, models=("m",))
    sim = await start_sim(rate=0.0, models=("m", "alias"), adapters=("m:sql", "m:chat"))
    base = await text(sim, model="m")
    assert base == await text(plain, model="m") == await text(sim, model="alias") == await text(sim)
    sql, chat = await text(sim, model="m:sql"), await text(sim, model="m:chat")
    assert (base[0], sql[0], chat[0]) == ("m", "m:sql", "m:chat")
    assert len({base[1], sql[1], chat[1]}) == 3
    assert await text(sim, model="m:sql") == sql


async def test_an_answer_is_continued_under_the_same_adapter(start_sim: StartSim) -> None:
    sim = await start_sim(rate=0.0, models=("m",), adapters=("m:sql",))
    whole = (await sim.chat(model="m:sql", max_tokens=20, return_token_ids=True)).json()
    prompt, ids = whole["prompt_token_ids"], whole["choices"][0]["token_ids"]
    rest: dict[str, list[int]] = {}
    for name in ("m", "m:sql"):
        body = {"model": name, "prompt": prompt + ids[:7], "max_tokens": 13, "return_token_ids": True}
        rest[name] = (await sim.http.post("/v1/completions", json=body)).json()["choices"][0]["token_ids"]
    assert rest["m:sql"] == ids[7:]
    assert rest["m"] != ids[7:]


async def test_listed_with_its_parent(start_sim: StartSim) -> None:
    sim = await start_sim(models=("m",), adapters=("m:sql",))
    base, adapter = (await sim.http.get("/v1/models")).json()["data"]
    assert (base["id"], base["parent"], base["max_model_len"]) == ("m", None, 32_768)
    assert (adapter["id"], adapter["parent"], adapter["max_model_len"]) == ("m:sql", "m", None)


async def test_one_that_was_not_loaded_is_no_model(start_sim: StartSim) -> None:
    sim = await start_sim(models=("m",), adapters=("m:sql",))
    answer = await sim.chat(model="m:other")
    assert (answer.status_code, answer.json()["error"]["message"]) == (404, "The model `m:other` does not exist.")
