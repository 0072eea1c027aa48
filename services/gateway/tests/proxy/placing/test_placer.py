"""A request's way from engine to engine: what a lost connection says, and that nothing of it is left behind."""

from __future__ import annotations

import asyncio
import random
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from cloudach_gateway.errors import GatewayError, UpstreamError, UpstreamTimeout
from cloudach_gateway.proxy.placing import suspects
from cloudach_gateway.proxy.placing.attempt import Attempt
from cloudach_gateway.proxy.placing.cause import Cause
from cloudach_gateway.proxy.placing.placer import Placer
from cloudach_gateway.proxy.placing.watch import Watch
from cloudach_gateway.proxy.stream.tally import Tally
from cloudach_gateway.proxy.stream.transcript import Transcript

from tests.support.waiting import until_async
from tests.support.wire import STREAM_HEAD, chunk

from .runs import CALL, DEAD, DONE, REFUSED, Heard, Run, breaks_after, failure, run_one, token


async def test_a_connection_that_was_closed_meanwhile_costs_nothing(start_engine: Any) -> None:
    """The engine closes each when it has answered, without a word: hundreds of requests notice nothing."""

    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(STREAM_HEAD + token(0) + DONE)
        await asyncio.sleep(random.uniform(0, 0.004))

    run = Run(await start_engine(play))
    for _ in range(300):
        with run.placer() as placer:
            attempt = await placer.place(CALL)
            assert len(attempt.exchange.pending) == 1
        await asyncio.sleep(random.uniform(0, 0.004))
    await run.nothing_is_left()


async def test_a_connection_that_was_used_and_an_engine_that_is_gone(start_engine: Any) -> None:
    """Nobody listens any more: that was no stale connection, but the engine's end."""

    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(STREAM_HEAD + token(0) + DONE)
        await peer.request()
        peer.engine.stop()
        peer.reset()

    run = Run(await start_engine(play))
    placer = run.placer()
    with placer:
        await placer.place(CALL)
    await asyncio.sleep(0.02)
    failed = await failure(placer)
    assert failed.cause is Cause.LOST
    assert placer.last is not None
    assert placer.last.was_only_suspect()
    await run.nothing_is_left(idle=0)


async def test_idle_connections_that_are_lost_with_a_stream_are_the_same_death(
    start_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request that goes on at the same address must not be taken for one that ended two engines."""
    monkeypatch.setattr(suspects, "_SAME_DEATH_S", 20.0)
    both_begun = asyncio.Event()

    async def play(peer: Any) -> None:
        await peer.request()
        if peer.number == 0:  # it breaks off in mid-stream
            await peer.say(STREAM_HEAD + token(0))
            await both_begun.wait()
            peer.engine.stop()
            return
        await peer.say(STREAM_HEAD + token(0) + DONE)
        await peer.request()  # its death is learned of by what it does not answer
        peer.reset()

    run = Run(await start_engine(play))
    with run.placer() as breaking:
        attempt = await breaking.place(CALL)
        with run.placer() as other:
            await other.place(CALL)
        both_begun.set()
        await until_async(lambda: attempt.exchange.problem)
        attempt.end(Cause.LOST)
        assert (await failure(breaking)).cause is Cause.REFUSED
    await run.nothing_is_left(idle=0)


async def test_what_a_dying_engine_still_takes_up_is_the_same_death(
    start_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed ends its connections before its listener: who comes back at once is taken up, and reset.
    A second later it is another death."""
    monkeypatch.setattr(suspects, "_SAME_DEATH_S", 20.0)

    async def play(peer: Any) -> None:
        await peer.request()
        if peer.number == 0:
            await peer.say(STREAM_HEAD + token(0))
        peer.reset()

    run = Run(await start_engine(play))
    placer = run.placer()
    with placer:
        attempt = await placer.place(CALL)
        await until_async(lambda: attempt.exchange.problem)
        attempt.end(Cause.LOST)
    assert (await failure(placer)).cause is Cause.REFUSED
    monkeypatch.setattr(run.engines.suspects._died, "_keep_s", 0.0)
    assert (await failure(placer)).cause is Cause.LOST
    await run.nothing_is_left(idle=0)


async def test_what_an_engine_answered_before_it_died_again_is_another_death(start_engine: Any) -> None:
    """One address may stand for many engines: what one of them had taken up may have ended it."""

    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(STREAM_HEAD + token(0) if peer.number == 0 else STREAM_HEAD)
        peer.reset()

    run = Run(await start_engine(play))
    placer = run.placer()
    with placer:
        attempt = await placer.place(CALL)
        await until_async(lambda: attempt.exchange.problem)
        attempt.end(Cause.LOST)
    assert (await failure(placer)).cause is Cause.LOST
    await run.nothing_is_left(idle=0)


NO = b'{"error":{"message":"no","code":400}}'


@pytest.mark.parametrize(
    ("answer", "events", "cause", "alone"),
    [
        (b"", True, Cause.LOST, True),
        (STREAM_HEAD, True, Cause.LOST, True),
        (STREAM_HEAD + DONE, True, Cause.LOST, True),
        (STREAM_HEAD + b"0\r\n\r\n", True, Cause.LOST, True),
        (STREAM_HEAD + chunk(b"data: " + DEAD + b"\n\n") + DONE, True, Cause.ENGINE_ERROR, True),
        (STREAM_HEAD + chunk(b"data: " + NO + b"\n\n") + DONE, True, Cause.REQUEST_REFUSED, True),
        (REFUSED % (len(DEAD), DEAD), True, Cause.REFUSED, True),
        (REFUSED % (len(DEAD), DEAD), False, Cause.ENGINE_ERROR, True),
        (b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", True, Cause.REFUSED, True),
        (b"HTTP/1.1 400 No\r\ncontent-length: 0\r\n\r\n", True, Cause.REQUEST_REFUSED, True),
        (b"HTTP/1.1 429 No\r\ncontent-length: 0\r\n\r\n", True, Cause.BUSY, True),
        (b"HTTP/1.1 504 No\r\ncontent-length: 0\r\n\r\n", True, Cause.FAILED, True),
        (b"gibberish\r\n\r\n", True, Cause.LOST, True),
    ],
)
async def test_what_an_answer_says_of_its_engine(
    start_engine: Any, answer: bytes, events: bool, cause: Cause, alone: bool
) -> None:
    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(answer)
        await asyncio.sleep(0.05)

    run = Run(await start_engine(play))
    placer = run.placer()
    failed = await failure(placer, events=events)
    assert failed.cause is cause
    assert placer.last is not None
    assert placer.last.was_only_suspect() == alone
    assert [attempt.end for attempt in run.record.attempts] == [cause.label]
    await run.nothing_is_left()


async def test_an_engine_that_takes_it_and_says_nothing(start_engine: Any) -> None:
    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(STREAM_HEAD)
        await peer.until_closed()

    run = Run(await start_engine(play), first_token_s=0.2)
    failed = await failure(run.placer())
    assert failed.cause is Cause.STALLED
    assert not failed.may_retry
    assert isinstance(failed.error, UpstreamTimeout)
    await run.nothing_is_left(idle=0)


async def test_empty_events_put_off_no_heartbeat(start_engine: Any) -> None:
    """The client gets nothing of them, so that its connection is as silent as without them."""

    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(STREAM_HEAD)
        for _ in range(60):
            await peer.say(chunk(b'data: {"choices":[]}\n\n'))
            await asyncio.sleep(0.02)
        await peer.say(token(0))
        await peer.until_closed()

    class Client:
        paused_at = None
        beats = 0

        def takes_nothing(self) -> bool:
            return False

        async def beat(self) -> None:
            self.beats += 1

    run, client = Run(await start_engine(play), heartbeat_s=0.2), Client()
    with Placer(run.engines, run.timeouts, run.request, Watch(run.timeouts, client), Tally(), run.record) as placer:
        await placer.place(CALL)
    assert client.beats >= 2
    await run.nothing_is_left()


async def test_small_events_before_the_first_choice_are_bounded_too(start_engine: Any) -> None:
    """Each holds memory beside its few bytes. Sixteen million of those took a minute, in which all others waited."""
    blocks = 0

    async def play(peer: Any) -> None:
        nonlocal blocks
        await peer.request()
        await peer.say(STREAM_HEAD)
        with suppress(OSError):
            while True:
                await peer.say(chunk(b"data: {}\n\n" * 100_000))
                blocks += 1

    run = Run(await start_engine(play))
    failed = await failure(run.placer())
    assert failed.cause is Cause.NO_ANSWER
    assert blocks < 40, "of a megabyte; some lie in the sockets"
    await run.nothing_is_left()


async def test_two_suspects_go_one_behind_the_other(start_engine: Any) -> None:
    """Each waits until the other has got on, at the only engine there is."""
    begun: list[float] = []

    async def play(peer: Any) -> None:
        await peer.request()
        begun.append(asyncio.get_running_loop().time())
        await peer.say(STREAM_HEAD + token(0))
        await peer.until_closed()

    run = Run(await start_engine(play))
    with ExitStack() as stack:
        placers = [stack.enter_context(run.placer()) for _ in range(3)]
        alone_until = asyncio.get_running_loop().time() + 30

        async def go(placer: Placer) -> Attempt:
            return await placer.place(CALL, alone_until=alone_until)

        tasks = [asyncio.create_task(go(placer)) for placer in placers]
        for count in (1, 2, 3):
            await until_async(lambda count=count: [task.done() for task in tasks].count(True) == count)
            await asyncio.sleep(0.1)  # the others do not begin
            assert len(begun) == count
            (alone,) = [placer.last for placer in placers if placer.last is not None and placer.last.in_quarantine]
            if count == 2:
                alone.end(Cause.LOST)
            else:
                alone.leave_quarantine()
        await asyncio.gather(*tasks)
    await run.nothing_is_left(idle=0)


async def test_others_go_elsewhere_while_a_suspect_is_watched(start_engine: Any) -> None:
    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(STREAM_HEAD + token(0))
        await peer.until_closed()

    run = Run(await start_engine(play), await start_engine(play))
    alone_until = asyncio.get_running_loop().time() + 30
    with ExitStack() as stack:
        suspect = await stack.enter_context(run.placer()).place(CALL, alone_until=alone_until)
        others = [await stack.enter_context(run.placer()).place(CALL) for _ in range(6)]
        assert suspect.upstream not in {other.upstream for other in others}
        suspect.leave_quarantine()
        assert {(await run_one(run)) for _ in range(3)} == {suspect.upstream}, "it has the least to do"
    await run.nothing_is_left()


async def test_a_suspect_does_not_wait_for_ever(start_engine: Any) -> None:
    async def play(peer: Any) -> None:
        await peer.request()
        await peer.say(STREAM_HEAD + token(0))
        await peer.until_closed()

    run = Run(await start_engine(play))
    clock = asyncio.get_running_loop().time
    with run.placer() as first, run.placer() as second:
        await first.place(CALL, alone_until=clock() + 30)
        with pytest.raises(UpstreamError, match="are restarting"):
            await second.place(CALL, alone_until=clock() + 0.1)
    await run.nothing_is_left(idle=0)


async def test_an_answer_over_several_engines(start_engine: Any) -> None:
    """Scripts: two that break off, one that was dead before, one that ends it."""

    async def dead(peer: Any) -> None:
        await peer.request()
        await peer.say(REFUSED % (len(DEAD), DEAD))

    async def ends(peer: Any) -> None:
        await peer.request()
        await peer.say(STREAM_HEAD, *(token(n) for n in range(20, 30)), token(30, end='"stop"'), DONE)

    scripts = [breaks_after(10), dead, ends]

    async def play(peer: Any) -> None:
        await scripts[min(peer.number, 2)](peer)

    heard = Heard()
    run = Run(await start_engine(play))
    conversation = run.conversation(heard)
    await conversation.stream(heard)
    assert heard.moves == ["failed over after 10"]
    assert heard.transcript.count == 21
    await run.nothing_is_left()


async def test_an_answer_that_begins_anew_ends_three_engines_at_most(start_engine: Any) -> None:
    """It gets as far as before each time, which is no progress."""
    victims = 0

    async def play(peer: Any) -> None:
        nonlocal victims
        victims += 1
        await breaks_after(20 + victims)(peer)

    class Anew(Heard):
        def start_over(self) -> bool:
            self.transcript = Transcript()
            return True

    heard = Anew()
    run = Run(*[await start_engine(play) for _ in range(5)], total_s=5)
    run.request.fields["tools"] = [{"type": "function"}]
    conversation = run.conversation(heard)
    with pytest.raises(GatewayError) as caught:
        await conversation.stream(heard)
    assert victims == 3
    assert str(caught.value.cause).endswith("given up: the request ended three engines")
    await run.nothing_is_left()


async def test_wherever_it_is_cancelled_nothing_is_left(start_engine: Any) -> None:
    """In a connect, in a wait, in a back-off, in quarantine, in mid-stream."""

    async def play(peer: Any) -> None:
        kind = peer.number % 5
        if kind == 0:
            peer.reset()
        elif kind == 1:
            await peer.request()
            await peer.say(STREAM_HEAD + token(0))
        elif kind == 2:
            await breaks_after(9)(peer)
        elif kind == 3:
            await peer.request()
            await peer.say(REFUSED % (len(DEAD), DEAD))
        else:
            await peer.request()
            await peer.say(STREAM_HEAD, *(token(n) for n in range(20)))
            await peer.until_closed()

    engines = [await start_engine(play), await start_engine(play)]
    run = Run(*engines, "http://127.0.0.1:1")

    async def talk() -> None:
        heard = Heard()
        all_heard.append(heard)
        await run.conversation(heard).stream(heard)

    all_heard: list[Heard] = []
    rng = random.Random(3)
    outcomes: dict[str, int] = {}
    for number in range(150):
        tasks = [asyncio.create_task(talk()) for _ in range(3)]
        turns = rng.choice([rng.randint(0, 40), rng.randint(0, 400)])
        for _ in range(turns):
            await asyncio.sleep(0 if number % 2 else 0.0005)
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError, GatewayError):
                await task
            outcome = "cancelled" if task.cancelled() else type(task.exception()).__name__
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert outcomes["cancelled"] > 100, outcomes
    assert set(outcomes) <= {"cancelled", "UpstreamError"}, outcomes
    attempts = [attempt for heard in all_heard for attempt in heard.attempts]
    assert {attempt.end for attempt in attempts} >= {"let_go", "lost", "refused"}
    assert "" not in {attempt.end for attempt in attempts}, "each attempt has ended, and says how"
    await run.nothing_is_left(idle=0)
