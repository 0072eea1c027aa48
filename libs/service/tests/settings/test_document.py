from __future__ import annotations

import pytest
from cloudach_service.settings.document import Document, Field, NotYaml

TEXT = """\
# A comment
base: &base
  a: 1
  b: [x, y,
      z]
other:
  <<: *base
  c: {d: 2}
"""


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ((), None),
        (("base",), 2),
        (("base", "a"), 3),
        (("base", "b", 2), 5),
        (("base", "b", 7), 4),
        (("base", "missing", "more"), 2),
        (("other", "c", "d"), 8),
        (("other", "a"), 6),
        (("nowhere",), None),
    ],
)
def test_the_line_of_a_field_or_of_what_is_around_it(field: Field, line: int | None) -> None:
    assert Document(TEXT).line(field) == line


def test_the_values_are_those_of_yaml() -> None:
    both = {"a": 1, "b": ["x", "y", "z"]}
    assert Document(TEXT).values() == {"base": both, "other": both | {"c": {"d": 2}}}
    assert Document("").values() is None


def test_a_merged_name_may_be_given_anew() -> None:
    document = Document("base: &base {a: 1}\nother: {<<: *base, a: 2}")
    assert document.repeated() == []
    assert document.values()["other"] == {"a": 2}


def test_anchors_that_multiply_are_walked_once() -> None:
    """Ten levels of ten are ten thousand million texts; whoever walks them all never comes back."""
    levels = ["l0: &l0 ['${A}']", *(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 11))]
    changed: list[str] = []

    def change(text: str) -> str:
        changed.append(text)
        return "a"

    document = Document("\n".join(levels))
    assert document.repeated() == []
    assert document.replace_texts(change) == []
    assert changed == ["${A}"]
    assert document.values()["l1"] == [["a"]] * 10


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: [", "line 2, column 5"),
        ("a: 1\nb: 'x\x00'", "the character U+0000, as line 2 does"),
        ("a: 1\n--- \nb: 2", "another document at line 2"),
        ("a: !python/object:os.system x", "line 1, column 4"),
    ],
)
def test_what_is_no_yaml_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(NotYaml) as refused:
        Document(text).values()
    assert said in str(refused.value)


@pytest.mark.parametrize("tag", ["bool", "timestamp", "int", "float"])
def test_a_tag_before_what_is_no_such_value_is_refused_without_the_value(tag: str) -> None:
    """An unquoted secret may begin with two exclamation marks."""
    with pytest.raises(NotYaml) as refused:
        Document(f"key: !!{tag} hunter2").values()
    assert "hunter2" not in str(refused.value)
