"""The check of docstrings finds what it is there for."""

import ast

import pytest

from scripts.check_docstrings import docstrings, files, main, problems

LONG = " ".join(["One thought is enough for one sentence", *["and so on"] * 8])


@pytest.mark.parametrize("begin", ["Of", "The same", "Whether", "Who", "What"])
def test_a_bare_beginning_is_refused(begin: str) -> None:
    assert [problem.startswith(f"begins with {begin!r}:") for problem in problems(f"{begin} it has.")] == [True]


@pytest.mark.parametrize("text", ["Offers what it has.", "Tells whether it has one.", "Whoever asks gets one."])
def test_a_word_that_only_looks_alike_is_not(text: str) -> None:
    assert list(problems(text)) == []


def test_a_long_sentence_is_refused_where_it_ends_and_not_before() -> None:
    assert list(problems("Short. " * 30)) == []
    assert [problem.startswith("31 words") for problem in problems(f"Short. {LONG}. Short.")] == [True]


def test_paragraphs_entries_and_colons_end_a_sentence() -> None:
    half = "a " * 20
    assert list(problems(f"{half}\n\n{half}\n\n- {half}\n- {half}")) == []
    assert list(problems(f"{half.strip()}: {half}")) == []


def test_an_indented_block_and_the_rows_of_a_table_are_left_alone() -> None:
    block = "\n".join(f"        {LONG}" for _ in range(3))
    assert list(problems(f"Short.\n\n{block}\n\n    Short.\n    ")) == []
    assert list(problems(f"Short.\n\n  one    {LONG}\n  two    {LONG}")) == []
    assert len(list(problems(f"Short.\n\n    {LONG}\n    "))) == 1


def test_texts_below_fields_count() -> None:
    source = 'class A:\n    """One."""\n\n    x: int\n    """Whether it is so."""\n'
    assert [text for _, text in docstrings(ast.parse(source))] == ["One.", "Whether it is so."]


def test_the_repository_keeps_the_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(list(files())) > 100
    assert main() == 0, capsys.readouterr().out
