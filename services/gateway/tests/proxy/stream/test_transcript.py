from __future__ import annotations

from cloudach_gateway.proxy.stream.transcript import MOST_OF_ONE, WINDOW, Transcript


def filled(events: int) -> Transcript:
    transcript = Transcript()
    for number in range(events):
        transcript.ids.extend(b"%d," % number)
        transcript.recent.append(b"%d" % number)
    return transcript


def test_rewound() -> None:
    transcript = filled(5)
    transcript.rewind(tokens=3, events=2)
    assert bytes(transcript.ids) == b"0,1,2,"
    assert transcript.count == 3
    assert list(transcript.recent) == [b"0", b"1"]
    transcript.rewind(tokens=0, events=0, sent=b"text")
    assert (bytes(transcript.ids), list(transcript.recent), transcript.count) == (b"", [b"text"], 0)


def test_what_was_lost_stays_lost() -> None:
    transcript = filled(WINDOW)
    assert not transcript.whole
    transcript.rewind(tokens=WINDOW - 9, events=WINDOW - 9)
    assert not transcript.whole
    transcript.rewind(tokens=3, events=3)
    assert not transcript.whole
    transcript = filled(WINDOW - 1)
    transcript.rewind(tokens=9, events=9)
    assert transcript.whole


def test_a_huge_event_takes_the_place_of_all_before() -> None:
    """Others of its size would hold a gigabyte."""
    transcript = Transcript()
    transcript.remember(b"x" * MOST_OF_ONE)
    transcript.remember(b"small")
    assert (transcript.whole, len(transcript.recent)) == (True, 2)
    huge = b"x" * (MOST_OF_ONE + 1)
    for _ in range(3):
        transcript.remember(huge)
    transcript.remember(b"small")
    assert (transcript.whole, list(transcript.recent)) == (False, [huge, b"small"])
