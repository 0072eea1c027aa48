from __future__ import annotations

import pytest
from cloudach_gateway.proxy.continuation.resume_point import ResumePoint, Step, later_point, latest_point, tokens_owed
from cloudach_gateway.proxy.continuation.stop_strings import StopStrings

NONE = StopStrings()
ROLE = Step((), "")
STOP = StopStrings(("stop!",))  # 4 characters are held back


def steps(*found: tuple[int, str]) -> list[Step]:
    """Of numbers of tokens and the text that came with them; tokens are numbered from 1."""
    out, token = [], 1
    for count, text in found:
        out.append(Step(tuple(range(token, token + count)), text))
        token += count
    return out


def count(found: list[Step]) -> int:
    return sum(len(step.ids) for step in found)


def cut(
    found: list[Step], stops: StopStrings = NONE, *, whole: bool = True, doubtful: int = -1
) -> tuple[int, str] | None:
    chosen = latest_point(found, count(found), stops, whole=whole, doubtful=doubtful)
    return None if chosen is None else (chosen.kept, chosen.owed)


def test_after_a_token_with_text_nothing_is_held_back() -> None:
    assert cut(steps((1, "Hi"), (1, " there"))) == (2, "")


def test_before_a_character_that_is_not_complete() -> None:
    assert cut(steps((1, "Hi"), (1, ""), (1, ""))) == (1, "")
    assert cut(steps((1, "Hi"), (1, ""), (1, "é"))) == (3, "")


def test_an_event_of_several_tokens_may_end_within_a_character() -> None:
    assert cut(steps((1, "Hi"), (2, " the"))) == (1, " the")
    assert cut(steps((1, "Hi"), (2, " there"), (1, ""))) == (1, " there")


def test_unless_the_next_character_is_ascii() -> None:
    assert cut(steps((1, "Hi"), (2, " the"), (2, " ré"))) == (3, " ré")
    assert cut(steps((1, "Hi"), (2, " the"), (2, "é"))) == (1, " theé")


def test_or_its_last_token_is_known_to_end_in_ascii() -> None:
    found = [Step((7,), " the"), Step((8, 9), " old"), Step((5, 7), " in the")]
    assert cut(found) == (5, "")
    assert cut([Step((7,), "é"), Step((5, 7), " né")]) == (1, " né")


def test_all_over_again_from_the_prompt() -> None:
    assert latest_point([ROLE, *steps((2, "Hi"))], 2, StopStrings(), whole=True) == ResumePoint(1, 0, "", "Hi")
    assert cut(steps((1, ""), (1, ""))) == (0, "")
    assert cut(steps((2, "Hi")), whole=False) is None


def test_tokens_before_the_window_are_kept() -> None:
    assert latest_point(steps((1, "a"), (1, "")), 90, StopStrings(), whole=False) == ResumePoint(1, 89, "a")


def test_a_number_of_tokens_that_is_in_doubt() -> None:
    found = steps((1, "a"), (1, "b"), (1, "c"))
    assert cut(found, doubtful=3) == (2, "c")
    assert cut(found, doubtful=2) == (3, "")


def test_text_that_is_held_back_for_stop_strings() -> None:
    lagging = steps((1, ""), (1, "one"), (1, " two t"))  # "one", " two", " three", of which the last 4 are held back
    assert latest_point(lagging, 3, STOP, whole=True) == ResumePoint(2, 2, "one two", " t")


def test_nothing_has_come_out_far_enough() -> None:
    found = steps((1, ""), (1, "on"))
    assert cut(found, STOP) == (0, "on")
    assert cut(found, STOP, whole=False) is None


def test_included_stop_strings_hold_nothing_back() -> None:
    included = StopStrings(("stop!",), included=True)
    assert cut(steps((1, "one"), (1, " two")), included) == (2, "")
    # What began before the window cannot be looked at.
    assert cut(steps((1, "o"), (1, "ne")), included, whole=False) is None
    assert cut(steps((1, "on"), (1, "e ")), included, whole=False) == (2, "")


def test_the_longest_stop_string_counts() -> None:
    assert StopStrings(("a", "abc", "ab")).reach == 2
    assert StopStrings(("a", "abc")).held_back == 2
    assert StopStrings(("a", "abc"), included=True).held_back == 0
    assert StopStrings().reach == StopStrings(("x",)).held_back == 0


def sharp(found: list[Step], told: str, stops: StopStrings = NONE) -> ResumePoint | None:
    rough = latest_point(found, count(found), stops, whole=True)
    assert rough is not None
    return later_point(rough, found, count(found), stops, told)


def test_text_that_was_told_makes_an_end_certain() -> None:
    found = steps((1, "Hi"), (3, " the old"))
    assert sharp(found, " the old") == ResumePoint(2, 4, "Hi the old", pending="")
    assert sharp(found, "the old") == ResumePoint(2, 4, "Hi the old", pending="")  # the tokenizer drops a first space


@pytest.mark.parametrize("told", [" the old\ufffd", " the ol", " the new", "", " the old<|end|>"])
def test_text_that_does_not_fit(told: str) -> None:
    assert sharp(steps((1, "Hi"), (3, " the old")), told) is None


def test_tokens_without_text_come_again() -> None:
    found = steps((1, "Hi"), (3, " the old"), (1, ""))
    assert sharp(found, " the old\ufffd") == ResumePoint(2, 4, "Hi the old", pending="")
    assert sharp(found, " the old<|end|>") is None
    assert sharp(steps((1, "Hi"), (1, "")), "\ufffd") is None  # nothing to gain


def test_what_was_held_back_is_told() -> None:
    lagging = steps((1, ""), (1, "one"), (1, " two t"))
    assert sharp(lagging, " three", STOP) == ResumePoint(3, 3, "one two three", pending="hree")
    assert sharp([*lagging, Step((4,), "")], " three\ufffd", STOP) == ResumePoint(3, 3, "one two three", pending="hree")
    for told in (" thre", " three!", " thre\ufffd", " three\ufffd"):
        assert sharp(lagging, told, STOP) is None


def test_how_many_tokens_are_owed() -> None:
    found = steps((1, "a"), (3, "bcd"), (2, "ef"))
    assert tokens_owed(ResumePoint(1, 1, "a", "bcdef"), found) == 5
    assert tokens_owed(ResumePoint(1, 1, "a", "bc"), found) == 3
    assert tokens_owed(ResumePoint(3, 6, "abcdef"), found) == 0
