from __future__ import annotations

import pytest
from cloudach_service.settings import escaped, expanded

KNOWN = {"NAME": "value", "EMPTY": "", "TRICKY": "${NAME} $$"}


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("${NAME}", "value"),
        ("a${NAME}b${NAME}", "avaluebvalue"),
        ("${NAME:-default}", "value"),
        ("${NONE:-default}", "default"),
        ("${NONE:-}", ""),
        ("${EMPTY:-default}", ""),
        ("${NONE:-http://a:1/$x}", "http://a:1/$x"),
        ("$NAME $ 5$ {NAME}", "$NAME $ 5$ {NAME}"),
        ("$${NAME}", "${NAME}"),
        ("$$${NAME}", "$${NAME}"),
        ("${TRICKY}", "${NAME} $$"),
    ],
)
def test_a_text_with_variables(text: str, becomes: str) -> None:
    assert expanded(text, KNOWN) == becomes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hunter2${NONE}", "the environment variable NONE is not set"),
        ("hunter2${NONE-x}", "write $${"),
        ("hunter2${", "write $${"),
        ("hunter2${}", "write $${"),
        ("hunter2${1}", "write $${"),
        ("hunter2${NAME", "write $${"),
        ("hunter2${a.b}", "write $${"),
    ],
)
def test_what_no_variable_gives_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"\$") as refused:
        expanded(text, KNOWN)
    assert said in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "a", "${NAME}", "$${NAME}", "$$${", "${${", "$", "$$", "{", "${NONE:-x}"])
def test_what_is_escaped_comes_back_as_it_was(text: str) -> None:
    assert expanded(escaped(text), KNOWN) == text
    assert escaped({"a": [text, 1, None], "b": {"c": True}}) == {"a": [escaped(text), 1, None], "b": {"c": True}}
