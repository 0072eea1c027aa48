"""What an admission promises, whichever limiter decides: Redis', or the local one while Redis is away."""

from __future__ import annotations

import asyncio

import pytest
from cloudach_gateway.errors import Budget, InvalidApiKey, NeverFits, PermissionDenied, RateLimited

from .conftest import OpenDoor


async def _outcomes(*asked) -> tuple[int, list[RateLimited]]:
    results = await asyncio.gather(*asked, return_exceptions=True)
    refused = [result for result in results if isinstance(result, RateLimited)]
    others = [result for result in results if isinstance(result, BaseException) and not isinstance(result, RateLimited)]
    assert others == []
    return len(results) - len(refused), refused


async def test_exactly_the_limit_of_a_burst(open_door: OpenDoor) -> None:
    door = await open_door(requests=7)
    admitted, refused = await _outcomes(*(door.ask() for _ in range(30)))
    assert admitted == 7
    assert len(refused) == 23
    assert {error.type for error in refused} == {"requests"}


@pytest.mark.parametrize("whole_seconds", [False, True])
async def test_who_waits_is_admitted_at_the_first_try(open_door: OpenDoor, whole_seconds: bool) -> None:
    door = await open_door(requests=5)

    async def told(number: int) -> float:
        try:
            await door.ask(f"mine {number}")
        except RateLimited as error:
            headers = dict(error.retry_headers())
            return int(headers[b"retry-after"]) if whole_seconds else int(headers[b"retry-after-ms"]) / 1000
        return 0.0

    waits = await asyncio.gather(*map(told, range(15)))
    assert waits.count(0.0) == 5
    began = door.now
    for wait, number in sorted((wait, number) for number, wait in enumerate(waits) if wait):
        door.passes(began + wait - door.now)
        await door.ask(f"mine {number}", retry=True)


async def test_a_newcomer_does_not_take_a_promised_place(open_door: OpenDoor) -> None:
    door = await open_door(requests=1)
    await door.ask("first")
    wait = await door.wait_for("second")
    door.passes(wait + 0.05)
    assert await door.wait_for("newcomer", kind="requests") == pytest.approx(0.95, abs=0.01)
    await door.ask("second", retry=True)


async def test_tokens_are_reserved_and_settled(open_door: OpenDoor) -> None:
    door = await open_door(tokens=100)
    first = await door.ask(tokens=70)
    assert first.limits.tokens is not None
    assert (first.limits.tokens.limit, first.limits.tokens.remaining) == (100, 30)
    await door.wait_for("second", tokens=40, kind="tokens")
    door.passes(0.1)
    await door.settle(first, used=10)
    # 10 used, 40 promised to `second`; what is left may be used now.
    third = await door.ask(tokens=50)
    assert third.limits.tokens is not None
    assert third.limits.tokens.remaining == 0
    with pytest.raises(RateLimited, match="100 tokens per minute"):
        await door.ask(tokens=40)  # would fit now, but `second` would find 50 + 40


async def test_more_than_the_whole_limit_never_fits(open_door: OpenDoor) -> None:
    door = await open_door(tokens=100)
    with pytest.raises(NeverFits) as refused:
        await door.ask(tokens=101)
    assert (b"x-should-retry", b"false") in refused.value.retry_headers()
    assert refused.value.limits is not None
    await door.ask(tokens=100)


async def test_a_request_counts_though_it_failed_but_its_tokens_do_not(open_door: OpenDoor) -> None:
    door = await open_door(requests=2, tokens=100)
    await door.settle(await door.ask(tokens=100), used=0, outcome="failed")
    second = await door.ask(tokens=100)
    assert second.limits.requests == Budget(2, 0, second.limits.requests.reset_s)
    await door.settle(second, used=0, outcome="cancelled")
    await door.wait_for("third", tokens=1, kind="requests")


async def test_concurrent_streams(open_door: OpenDoor) -> None:
    door = await open_door(concurrency=2)
    first, _second = await door.ask("a"), await door.ask("b")
    assert 1 <= await door.wait_for("c", kind="requests") <= 60
    await door.settle(first, used=5)
    third = await door.ask("c", retry=True)
    await door.settle(third, used=5)
    await door.settle(third, used=5)  # once is once: no second place comes free
    await door.ask("d")
    await door.wait_for("e")


async def test_models(open_door: OpenDoor) -> None:
    door = await open_door(models=["small", "medium"])
    await door.ask(models=("m-2025", "medium"))  # known under an alias that is allowed
    with pytest.raises(PermissionDenied) as refused:
        await door.ask(models=("large", "huge"))
    assert (refused.value.status, refused.value.code) == (403, "model_not_allowed")
    with pytest.raises(PermissionDenied):
        await door.ask(models=("mall",))
    with pytest.raises(PermissionDenied):
        await door.ask(models=())
    caller = await door.admission.authenticate(door.key.api_key)
    assert caller.may_use(("x", "small"))
    assert not caller.may_use(("x",))


async def test_looking_consumes_nothing(open_door: OpenDoor) -> None:
    door = await open_door(requests=3, tokens=30)
    for _ in range(10):
        caller = await door.admission.authenticate(door.key.api_key)
        assert caller.limits.requests == Budget(3, 3, 0.0)
        assert caller.limits.tokens == Budget(30, 30, 0.0)
    grant = await door.ask(tokens=10)
    caller = await door.admission.authenticate(door.key.api_key)
    assert caller.limits.requests is not None
    assert caller.limits.tokens is not None
    assert (caller.limits.requests.remaining, caller.limits.tokens.remaining) == (2, 20)
    assert 0.5 < caller.limits.requests.reset_s <= 1.0
    assert grant.caller.record == caller.record


async def test_a_key_without_limits(open_door: OpenDoor) -> None:
    door = await open_door()
    grants = [await door.ask(tokens=10**6) for _ in range(100)]
    assert {(grant.limits.requests, grant.limits.tokens) for grant in grants} == {(None, None)}
    assert door.admission.running == 100


@pytest.mark.parametrize(
    "api_key", ["", "x", "sk-cld-acme-abc-", "sk-cld-ACME-abcdefgh-" + "x" * 40, "sk-\ncld", "é" * 60]
)
async def test_a_malformed_key(open_door: OpenDoor, api_key: str) -> None:
    door = await open_door()
    with pytest.raises(InvalidApiKey, match="malformed"):
        await door.admission.authenticate(api_key)
