"""Exports: a conversation page by page, so that its length costs no memory.

Each page is a short transaction of its own.
"""

from typing import Any, NamedTuple

from sqlalchemy import tuple_
from sqlmodel import Session

from server.history.conversations import readable_conversation
from server.history.keyset import Page, Slice
from server.history.messages import MessageRow, bounded_rows
from server.history.tables import MESSAGES as M
from server.history.tree import (
    BranchPart,
    SiblingWindow,
    branch_pages,
    message_above,
    sibling_windows,
)

PAGE_MESSAGES = 200


class Key(NamedTuple):
    """A position in an export: roots first, then by parent, each group in the order of siblings."""

    parent_id: str | None
    position: int


class ExportPage(NamedTuple):
    """Some messages with their siblings; a large group of siblings has an empty window."""

    rows: list[MessageRow]
    siblings: dict[str, SiblingWindow]
    next: Key | None


def export_page(
    session: Session, conversation_id: str, account_id: str, after: Key | None
) -> ExportPage:
    """The messages of all branches after a key; raises NotFound when the conversation is gone."""
    readable_conversation(session, conversation_id, account_id)
    rows = exported_rows(session, conversation_id, after)
    windows = sibling_windows(session, [row.message for row in rows], only_small=True)
    last = rows[-1].message if rows else None
    return ExportPage(rows, windows, Key(last.parent_id, last.position) if last else None)


def exported_rows(session: Session, conversation_id: str, after: Key | None) -> list[MessageRow]:
    """Up to PAGE_MESSAGES messages after a key, fewer when their content is large."""
    rows: list[MessageRow] = []
    if after is None or after.parent_id is None:
        position = after.position if after else -1
        roots = M.c.parent_id.is_(None) & (M.c.position > position)
        rows = _rows(session, conversation_id, roots, (M.c.position,))
        after = Key("", -1)
    if not rows:
        key = tuple_(M.c.parent_id, M.c.position)
        below = key > (after.parent_id, after.position)
        rows = _rows(session, conversation_id, below, (M.c.parent_id, M.c.position))
    return rows


def _rows(
    session: Session, conversation_id: str, which: Any, order: tuple[Any, ...]
) -> list[MessageRow]:
    of_conversation = M.c.conversation_id == conversation_id
    return bounded_rows(session, of_conversation & which, order, limit=PAGE_MESSAGES).rows


def message_above_page(
    session: Session, conversation_id: str, account_id: str, leaf_id: str
) -> str | None:
    """The ancestor of a message by PAGE_MESSAGES levels; raises NotFound as above."""
    readable_conversation(session, conversation_id, account_id)
    return message_above(session, leaf_id, PAGE_MESSAGES)


def branch_after(
    session: Session, conversation_id: str, account_id: str, leaf_id: str, after: str | None
) -> Page[MessageRow]:
    """A page of the branch that ends with a leaf, after one of its messages, oldest first.

    Raises NotFound when the conversation is gone.
    """
    readable_conversation(session, conversation_id, account_id)
    wanted = BranchPart(leaf_id, Slice(PAGE_MESSAGES, after=after))
    page = branch_pages(session, [wanted])[wanted]
    assert isinstance(page, Page), "messages never leave their branch"
    return page
