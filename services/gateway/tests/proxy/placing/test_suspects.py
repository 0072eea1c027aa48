"""Who is suspected when an engine dies, and that suspects go on one at a time."""

from __future__ import annotations

from contextlib import ExitStack

from cloudach_gateway.proxy.placing.quarantine import Quarantine
from cloudach_gateway.proxy.placing.suspects import Placement, Suspects

HERE, THERE = "http://here", "http://there"


class Request:
    """With so many new tokens."""

    def __init__(self, placements: Suspects, upstream: str = HERE, *, far: bool = False) -> None:
        self.far = far
        self.asked = 0
        self._placements = placements
        self.placed(upstream)

    def placed(self, upstream: str = HERE) -> None:
        self.placement: Placement = self._placements.began(upstream, self, self._progressed)

    def ends(self, *, lost: bool, now: float = 0.0) -> None:
        self._placements.ended(self.placement, lost=lost, now=now)

    def alone(self, now: float, upstream: str = HERE) -> bool:
        return self._placements.alone(upstream, self, now)

    def _progressed(self) -> bool:
        self.asked += 1
        return self.far


def test_the_only_one_is_alone() -> None:
    placements = Suspects()
    one = Request(placements)
    one.ends(lost=True)
    assert one.alone(0.0)


def test_those_that_have_got_far_are_no_suspects() -> None:
    placements = Suspects()
    others = [Request(placements, far=True) for _ in range(5)]
    one = Request(placements)
    for other in others[:3]:
        other.ends(lost=True)
    one.ends(lost=True)
    assert one.alone(0.0), "neither those that were lost before it nor those still to be lost"


def test_another_that_has_not_got_far_is() -> None:
    placements = Suspects()
    one, other, last = (Request(placements) for _ in range(3))
    one.ends(lost=True, now=10.0)
    assert not one.alone(10.0), "the others' loss has not been seen yet"
    other.ends(lost=True, now=10.1)
    last.ends(lost=True, now=10.2)
    assert not last.alone(10.2), "the others' loss has been seen"


def test_few_tokens_are_no_progress() -> None:
    """They were suspects to themselves, but not to each other: each took itself for the only one."""
    placements = Suspects()
    one, other = Request(placements), Request(placements)
    one.ends(lost=True)
    assert not one.alone(0.0)
    other.far = True
    assert one.alone(0.0)


def test_only_the_same_engine_and_the_same_death_count() -> None:
    placements = Suspects()
    Request(placements, THERE)
    Request(placements).ends(lost=True, now=0.0)
    one = Request(placements)
    one.ends(lost=True, now=1.5)
    assert one.alone(1.5)
    assert not one.alone(1.5, THERE)


def test_one_address_may_stand_for_many_engines() -> None:
    """A request's own losses there do not speak for it."""
    placements = Suspects()
    one = Request(placements)
    for now in (0.0, 0.1):
        one.ends(lost=True, now=now)
        assert one.alone(now)
        one.placed()


def test_who_finished_or_was_refused_is_no_suspect() -> None:
    placements = Suspects()
    for _ in range(3):
        Request(placements).ends(lost=False)
    one = Request(placements)
    one.ends(lost=True)
    assert one.alone(0.0)


def test_each_is_asked_once() -> None:
    """Hundreds of streams may break at once, and each asks for all others."""
    placements = Suspects()
    streams = [Request(placements, far=True) for _ in range(300)]
    for stream in streams:
        stream.ends(lost=True)
        assert stream.alone(0.0)
    assert sum(stream.asked for stream in streams) <= 2 * len(streams)


def test_one_at_a_time_at_each_engine() -> None:
    quarantine = Quarantine()
    both = (HERE, THERE)
    states = []
    for step in (None, HERE, THERE):
        if step is not None:
            quarantine.enter(step)
        states.append((list(quarantine.open(both)), list(quarantine.empty(both))))
    quarantine.leave(HERE)
    states.append((list(quarantine.open(both)), list(quarantine.empty(both))))
    assert states == [([HERE, THERE],) * 2, ([THERE],) * 2, ([],) * 2, ([HERE],) * 2]


def test_of_a_crowd_some_go_together() -> None:
    """A hundred one behind the other would outlast their budget."""
    quarantine = Quarantine()
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(quarantine.waiting(lambda: None))
        for _ in range(7):
            assert list(quarantine.open([HERE])) == [HERE]
            quarantine.enter(HERE)
        assert list(quarantine.open([HERE])) == []
        assert list(quarantine.empty([HERE, THERE])) == [THERE]
    for _ in range(7):
        assert list(quarantine.open([HERE])) == []
        quarantine.leave(HERE)
    assert list(quarantine.open([HERE])) == list(quarantine.empty([HERE])) == [HERE]


def test_those_who_wait_are_woken_in_their_order_and_only_while_they_wait() -> None:
    quarantine = Quarantine()
    for _ in range(3):
        quarantine.enter(HERE)
    woken: list[str] = []
    with quarantine.waiting(lambda: woken.append("first")):
        with quarantine.waiting(lambda: woken.append("second")):
            quarantine.leave(HERE)
        quarantine.leave(HERE)
    quarantine.leave(HERE)
    assert woken == ["first", "second", "first"]
