"""Words: what a text is found by, what a query asks for, and where in a text it was found. The same on every database."""

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

INDEXED_CHARS = 100_000
WORD_MAX_CHARS = 64
TERMS_MAX = 16
PREFIX_MIN_CHARS = 2
EXCERPT_CHARS = 180
LEAD_CHARS = 40

# Scripts written without spaces: each of their characters is a word of its own.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# Marks that are part of words, in the scripts that have most of them.
_MARKS = (
    "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u0670\u06d6-\u06ed\u0900-\u0963\u0966-\u0dff"
)
_WORD = re.compile(rf"[{_UNSPACED}]|(?:[^\W_{_UNSPACED}]|[{_MARKS}])+")
_QUERY = re.compile(r'"([^"]*)"?|([^\s"]+)')


class Term(NamedTuple):
    """Words that stand one after the other; the last one may go on where `prefix` is set."""

    words: tuple[str, ...]
    prefix: bool

    def matches_at(self, words: list[str], start: int) -> bool:
        """Whether it stands at this place of a text."""
        found = words[start : start + len(self.words)]
        if len(found) < len(self.words):
            return False
        last_matches = (
            found[-1].startswith(self.words[-1]) if self.prefix else found[-1] == self.words[-1]
        )
        return last_matches and tuple(found[:-1]) == self.words[:-1]


class Piece(NamedTuple):
    """A part of an excerpt."""

    text: str
    match: bool


def words_of(text: str) -> list[str]:
    """The words of a text, without case and marks, of its first 100,000 characters."""
    text = text[:INDEXED_CHARS]
    if text.isascii():
        return [word[:WORD_MAX_CHARS] for word in _WORD.findall(text.lower())]
    return [word for word, _, _ in _placed(text)]


def terms_of(query: str) -> list[Term]:
    """What a query asks for: every word, or, between quotes, words in a row. The last word, and any before a `*`, may go on.

    Words of one letter may not: half of all words go on from there. Nothing else in a query has a meaning, so none is wrong; one without
    words asks for nothing.
    """
    terms: list[Term] = []
    for phrase, word in _QUERY.findall(query):
        words = tuple(words_of(phrase or word))
        if words:
            terms.append(Term(words, prefix=word.endswith("*")))
    if terms and not query.rstrip().endswith('"') and not query[-1:].isspace():
        terms[-1] = terms[-1]._replace(prefix=True)  # it may still be being typed
    return [
        term._replace(prefix=term.prefix and len(term.words[-1]) >= PREFIX_MIN_CHARS)
        for term in terms[:TERMS_MAX]
    ]


def excerpt_of(text: str, terms: list[Term]) -> list[Piece]:
    """About 180 characters of a text around the first place where a term was found, with all that was found in it marked."""
    text = text[:INDEXED_CHARS]
    placed = list(_placed(text))
    words = [word for word, _, _ in placed]
    found = [(n, term) for n in range(len(placed)) for term in terms if term.matches_at(words, n)]
    spans = [(placed[n][1], placed[n + len(term.words) - 1][2]) for n, term in found]
    start, end = _window(text, spans[0][0] if spans else 0)
    pieces = [Piece("…", match=False)] if start > 0 else []
    at = start
    for first, last in spans:
        if first < at:
            continue
        if last > end:
            break
        if first > at:
            pieces.append(Piece(text[at:first], match=False))
        pieces.append(Piece(text[first:last], match=True))
        at = last
    rest = text[at:end] + ("…" if end < len(text) else "")
    return [*pieces, Piece(rest, match=False)] if rest else pieces


def _window(text: str, found: int) -> tuple[int, int]:
    """Where an excerpt begins and ends, between words where there are any."""
    start = max(0, found - LEAD_CHARS)
    if start > 0 and (space := text.find(" ", start, found)) >= 0:
        start = space + 1
    end = min(len(text), start + EXCERPT_CHARS)
    if end < len(text) and (space := text.rfind(" ", found, end)) > found:
        end = space
    return start, end


def _placed(text: str) -> Iterator[tuple[str, int, int]]:
    """Each word as it is compared, with where it begins and ends in the text."""
    for match in _WORD.finditer(text):
        word = match.group()
        if not word.isascii():
            decomposed = unicodedata.normalize("NFKD", word.casefold())
            word = "".join(
                char
                for char in decomposed
                if not unicodedata.combining(char) and (char.isalnum() or not char.isascii())
            )
        else:
            word = word.lower()
        if word:
            yield word[:WORD_MAX_CHARS], match.start(), match.end()
