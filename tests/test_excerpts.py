"""Excerpts equal those of a word-by-word search, at a cost independent of the number of matches."""

import sys
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.history.tokenizer import (
    _WORD,
    EXCERPT_CHARS,
    LEAD_CHARS,
    Piece,
    Term,
    excerpt_of,
    terms_of,
    words_of,
)

pytestmark = pytest.mark.quick

LONG = ("the high water mark of the harbour, " * 3_000)[:99_000]
PHRASES = " ".join(f'"high water mark of {n}"' for n in range(14)) + ' "high water" mark'

texts = st.text(alphabet="ab Àé東海\u0301\u00a8.,\n", max_size=600) | st.text(max_size=300)
queries = st.text(alphabet='ab Àé東海"*', max_size=12) | st.text(max_size=12)


def reference(text: str, terms: list[Term]) -> list[Piece]:
    """The specification of an excerpt: compare every term at every word, take the first match and
    its surroundings.
    """
    positions = [
        (words[0], match.start(), match.end())
        for match in _WORD.finditer(text)
        if (words := words_of(match.group()))
    ]

    def is_at(term: Term, n: int) -> bool:
        found = [word for word, _, _ in positions[n : n + len(term.words)]]
        if len(found) < len(term.words) or tuple(found[:-1]) != term.words[:-1]:
            return False
        last = term.words[-1]
        return found[-1].startswith(last) if term.prefix else found[-1] == last

    spans = [
        (positions[n][1], positions[n + len(term.words) - 1][2])
        for n in range(len(positions))
        for term in terms
        if is_at(term, n)
    ]
    first = spans[0][0] if spans else 0
    start = max(0, first - LEAD_CHARS)
    if start > 0 and (space := text.find(" ", start, first)) >= 0:
        start = space + 1
    end = min(len(text), start + EXCERPT_CHARS)
    if end < len(text) and (space := text.rfind(" ", first, end)) > first:
        end = space
    pieces, at = [Piece("…", match=False)] if start > 0 else [], start
    for begin, stop in spans:
        if begin < at:
            continue
        if stop > end:
            break
        pieces += [Piece(text[at:begin], match=False)] if begin > at else []
        pieces.append(Piece(text[begin:stop], match=True))
        at = stop
    rest = text[at:end] + ("…" if end < len(text) else "")
    return [*pieces, Piece(rest, match=False)] if rest else pieces


def calls_of(run: Callable[[], object]) -> int:
    """The number of Python and C function calls."""
    calls = 0

    def count(_frame: object, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(None)
    return calls


@given(texts, queries)
@example("a" * 50 + " b" * 200, "b a* b")
@example("é \u00a8 a b " * 60, '"a b" é')
@example(LONG[:900], PHRASES)
@settings(max_examples=500, deadline=None)
def test_an_excerpt_equals_the_reference(text: str, query: str) -> None:
    terms = terms_of(query)

    assert excerpt_of(text, terms) == reference(text, terms)


def test_an_excerpt_costs_the_same_however_often_the_terms_occur() -> None:
    terms = terms_of(PHRASES)
    assert len(terms) == 16

    calls = calls_of(lambda: excerpt_of(LONG, terms))

    assert any(piece.match for piece in excerpt_of(LONG, terms))
    assert calls < 5_000
