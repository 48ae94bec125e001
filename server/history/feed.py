"""The change feed: the changes of an account after a position, in order."""

from typing import NamedTuple

from sqlalchemy import select
from sqlmodel import Session

from server.errors import NotFound
from server.history.conversations import ConversationRow, conversation_row, with_active
from server.history.messages import MessageRow, changed_messages
from server.history.tables import ACCOUNTS as A
from server.history.tables import ACTIVE, Conversation, Generation, Role
from server.history.tables import CONVERSATIONS as C
from server.history.tables import GENERATIONS as G
from server.history.tree import SiblingWindow, branch, sibling_windows

OPENED_MESSAGES = 50
CONVERSATIONS_MAX, MESSAGES_MAX = 500, 100
"""How many changes are sent one by one; with more, sending the current state costs less."""


class FeedPosition(NamedTuple):
    """A position in the changes of an account: after the row `key` of change number `change`."""

    change: int
    key: str = ""


class ConversationChange(NamedTuple):
    """A conversation as of its last change; `row` is None when it was deleted."""

    position: FeedPosition
    id: str
    row: ConversationRow | None


class MessageChange(NamedTuple):
    """A message as of its last change."""

    position: FeedPosition
    row: MessageRow
    siblings: SiblingWindow


Change = ConversationChange | MessageChange


class OpenedConversation(NamedTuple):
    """The initial state of a conversation for a reader: newest messages, active generations."""

    row: ConversationRow
    messages: list[MessageRow]
    siblings: dict[str, SiblingWindow]
    before: str | None
    active: list[Generation]


class FeedPage(NamedTuple):
    """What a reader gets next, as of change number `change`.

    `changes` are those after its position; None when there are too many. With `starts_over`, the
    reader gets the current state; `opened` is then the conversation it follows, if any.
    """

    change: int
    changes: list[Change] | None
    opened: OpenedConversation | None = None
    starts_over: bool = False


class Scope(NamedTuple):
    """What a reader follows: the account's list of conversations, one conversation, or both."""

    account_id: str
    conversation_id: str | None = None
    lists: bool = True


AFTER_ALL_ROWS = "3"
"""The key that follows every row of a change."""

_CONVERSATION = "0"
_KEYS = {Role.USER: "1", Role.ASSISTANT: "2"}
"""Within one change, a conversation precedes its messages, and a question its answer."""


def open_feed(
    session: Session, scope: Scope, since: FeedPosition | None, *, reopen: bool
) -> FeedPage:
    """The first page for a reader at `since` (None: a new reader).

    With `reopen` it keeps its position in the list and gets the conversation's current state.
    Raises NotFound when there is no such conversation.
    """
    change = _last_change_in_snapshot(session, scope.account_id)
    if since is None or since.change > change:
        opened = _opened(session, scope)
        return FeedPage(change, None if since else [], opened, starts_over=True)
    if not reopen:
        _check_not_removed_before(session, scope, since)
        return FeedPage(change, _changes(session, scope, since, change))
    of_list = scope._replace(conversation_id=None)
    changes = _changes(session, of_list, since, change) if scope.lists else []
    return FeedPage(change, changes, _opened(session, scope), starts_over=True)


def changes_since(session: Session, scope: Scope, since: FeedPosition) -> FeedPage:
    """The changes after a position, in order."""
    change = _last_change_in_snapshot(session, scope.account_id)
    return FeedPage(change, _changes(session, scope, since, change))


def _last_change_in_snapshot(session: Session, account_id: str) -> int:
    """The account's last change; the whole transaction reads one snapshot.

    SQLite always does; PostgreSQL needs an isolation level for it.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    change: int = session.execute(select(A.c.change).where(A.c.id == account_id)).scalar_one()
    return change


def _check_not_removed_before(session: Session, scope: Scope, since: FeedPosition) -> None:
    """Raises NotFound unless the reader's conversation exists or was deleted after its position."""
    if scope.conversation_id is None:
        return
    conversation = session.get(Conversation, scope.conversation_id)
    if conversation is None or conversation.account_id != scope.account_id:
        raise NotFound("conversation")
    removed = FeedPosition(conversation.change, AFTER_ALL_ROWS)
    if conversation.deleted_at is not None and removed <= since:
        raise NotFound("conversation")


def _opened(session: Session, scope: Scope) -> OpenedConversation | None:
    if scope.conversation_id is None:
        return None
    row = conversation_row(session, scope.conversation_id, scope.account_id)
    page = branch(session, row.conversation.shown_message_id, limit=OPENED_MESSAGES)
    active = select(Generation).where(
        G.c.conversation_id == scope.conversation_id, G.c.status.in_(ACTIVE)
    )
    return OpenedConversation(
        row,
        page.items,
        sibling_windows(session, [each.message for each in page.items]),
        page.items[0].message.id if page.has_previous else None,
        list(session.scalars(active.order_by(G.c.id))),
    )


def _changes(
    session: Session, scope: Scope, since: FeedPosition, change: int
) -> list[Change] | None:
    """The rows changed after a position, up to number `change`; None if there are too many."""
    query = select(Conversation).where(
        C.c.account_id == scope.account_id, C.c.change.between(since.change, change)
    )
    if not scope.lists:
        query = query.where(C.c.id == scope.conversation_id)
    query = query.order_by(C.c.change).limit(CONVERSATIONS_MAX + 1)
    conversations = with_active(session, list(session.scalars(query)))
    messages: list[MessageRow] = []
    if scope.conversation_id is not None:
        messages, complete = changed_messages(
            session, scope.conversation_id, since.change, change, limit=MESSAGES_MAX + 1
        )
        if len(messages) > MESSAGES_MAX or not complete:
            return None
    if len(conversations) > CONVERSATIONS_MAX:
        return None
    windows = sibling_windows(session, [row.message for row in messages])
    changes: list[Change] = [_conversation_change(row) for row in conversations]
    for row in messages:
        position = FeedPosition(row.message.change, _KEYS[row.message.role] + row.message.id)
        changes.append(MessageChange(position, row, windows[row.message.id]))
    return sorted(
        (each for each in changes if each.position > since), key=lambda each: each.position
    )


def _conversation_change(row: ConversationRow) -> ConversationChange:
    conversation = row.conversation
    position = FeedPosition(conversation.change, _CONVERSATION + conversation.id)
    return ConversationChange(position, conversation.id, None if conversation.deleted_at else row)
