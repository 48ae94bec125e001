"""The tokenizer of search: the words of a text, the terms of a query, and excerpts of a text.

The same code splits and normalizes words for SQLite and PostgreSQL, so both find the same texts.
"""

import re
import unicodedata
from collections.abc import Iterator
from itertools import islice, takewhile
from typing import NamedTuple

INDEXED_CHARS = 100_000
WORD_MAX_CHARS = 64
TERMS_MAX = 16
PREFIX_MIN_CHARS = 2
EXCERPT_CHARS = 180
LEAD_CHARS = 40

# Scripts written without spaces: each of their characters is a word of its own.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# Combining marks that are part of words, in the scripts that have most of them.
_MARKS = (
    "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u0670\u06d6-\u06ed\u0900-\u0963\u0966-\u0dff"
)
_WORD = re.compile(rf"[{_UNSPACED}]|(?:[^\W_{_UNSPACED}]|[{_MARKS}])+")
_QUERY = re.compile(r'"([^"]*)"?|([^\s"]+)')


class Term(NamedTuple):
    """Consecutive words of a query; with `prefix`, the last one matches any word it begins."""

    words: tuple[str, ...]
    prefix: bool

    @property
    def needle(self) -> str:
        """The term as it occurs in words joined by spaces, with a space at both ends."""
        return f" {' '.join(self.words)}{'' if self.prefix else ' '}"


class Piece(NamedTuple):
    """A part of an excerpt."""

    text: str
    match: bool


class _Token(NamedTuple):
    """A normalized word, and its position in the text."""

    word: str
    start: int
    end: int


class _Normalized(dict[str, str]):
    """Normalizes words, with a cache: without case and accents; empty if nothing remains."""

    def __missing__(self, word: str) -> str:
        if word.isascii():
            normalized = word.lower()
        else:
            decomposed = unicodedata.normalize("NFKD", word.casefold())
            normalized = "".join(
                char
                for char in decomposed
                if not unicodedata.combining(char) and (char.isalnum() or not char.isascii())
            )
        self[word] = normalized = normalized[:WORD_MAX_CHARS]
        return normalized


def words_of(text: str) -> list[str]:
    """The normalized words of the first 100,000 characters of a text."""
    return _words(text[:INDEXED_CHARS], _Normalized())


def terms_of(query: str) -> list[Term]:
    """The terms of a query: each word, or the words between double quotes as a phrase.

    The last word of the query, and any word followed by `*`, is a prefix if it has at least two
    letters. No other character has a meaning, so every query is valid; one without words has no
    terms.
    """
    terms: list[Term] = []
    for phrase, word in _QUERY.findall(query):
        words = tuple(words_of(phrase or word))
        if words:
            terms.append(Term(words, prefix=word.endswith("*")))
    if terms and not query.rstrip().endswith('"') and not query[-1:].isspace():
        terms[-1] = terms[-1]._replace(prefix=True)  # the user may still be typing it
    return [
        term._replace(prefix=term.prefix and len(term.words[-1]) >= PREFIX_MIN_CHARS)
        for term in terms[:TERMS_MAX]
    ]


def excerpt_of(text: str, terms: list[Term]) -> list[Piece]:
    """About 180 characters of a text around its first match, with all matches in them marked.

    Without a match, the beginning of the text. The cost is one pass over the words of the text and
    one `str.find` per term; only the words of the excerpt are compared one by one.
    """
    text = text[:INDEXED_CHARS]
    normalized = _Normalized()
    joined = f" {' '.join(_words(text, normalized))} " if terms else ""
    needles = [term.needle for term in terms]
    offset = min((at for each in needles if (at := joined.find(each)) >= 0), default=-1)
    if offset < 0:
        return _pieces(text, *_window(text, 0), [])
    tokens = islice(_tokens(text, normalized), joined.count(" ", 0, offset), None)
    shown = [next(tokens)]
    start, end = _window(text, shown[0].start)
    shown += takewhile(lambda token: token.start < end, tokens)
    spans = []
    for n, token in enumerate(shown):
        for term, needle in zip(terms, needles, strict=True):
            last = n + len(term.words) - 1
            if last < len(shown) and joined.startswith(needle, offset):
                spans.append((token.start, shown[last].end))
        offset += len(token.word) + 1
    return _pieces(text, start, end, spans)


def _pieces(text: str, start: int, end: int, spans: list[tuple[int, int]]) -> list[Piece]:
    """The text from `start` to `end`; of spans that overlap, the first one is marked."""
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
    """Where the excerpt around a position begins and ends, between words if possible."""
    start = max(0, found - LEAD_CHARS)
    if start > 0 and (space := text.find(" ", start, found)) >= 0:
        start = space + 1
    end = min(len(text), start + EXCERPT_CHARS)
    if end < len(text) and (space := text.rfind(" ", found, end)) > found:
        end = space
    return start, end


def _words(text: str, normalized: _Normalized) -> list[str]:
    if text.isascii():
        return [word[:WORD_MAX_CHARS] for word in _WORD.findall(text.lower())]
    return [word for word in map(normalized.__getitem__, _WORD.findall(text)) if word]


def _tokens(text: str, normalized: _Normalized) -> Iterator[_Token]:
    """The same words as `_words`, with their positions."""
    for match in _WORD.finditer(text):
        if word := normalized[match.group()]:
            yield _Token(word, match.start(), match.end())
