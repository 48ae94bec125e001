"""What a page shows, and what of it has changed: rows by the change number that touched them last.

Changes of one account come one by one, so whoever sees change n sees all before it. A row is told in the state of its last change only.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlmodel import Session, col, select

from server.errors import NotFound
from server.history.conversations import (
    active_generations,
    readable_conversation,
    shown_conversation,
)
from server.history.messages import Said, branch, shown_message, siblings
from server.history.tables import ACTIVE, Account, Conversation, Generation, Message, Role

OPENED_MESSAGES = 50
CONVERSATIONS_MAX, MESSAGES_MAX = 500, 100
"""How many changes are told one by one; after more of them it is cheaper to begin anew."""


class Place(NamedTuple):
    """Where a reader of changes stands: after the row named `key` of change number `change`."""

    change: int
    key: str = ""


class Change(NamedTuple):
    """One row as of its last change; `shown` is None when it is gone."""

    place: Place
    id: str
    shown: dict[str, Any] | None
    row: Conversation | Said

    @property
    def generation(self) -> Generation | None:
        """The one that wrote an answer last."""
        return self.row.generation if isinstance(self.row, Said) else None

    @property
    def about_message(self) -> bool:
        return not self.place.key.startswith(_CONVERSATION)


class Opened(NamedTuple):
    """A conversation as a page first shows it: its newest messages, and the answers that are being written."""

    conversation: dict[str, Any] | None
    messages: list[dict[str, Any]]
    before: str | None
    writing: list[Generation]
    row: Conversation | None = None
    said: Sequence[Said] = ()


class Page(NamedTuple):
    """What a page is to be told: `opened` where it has to begin anew, and the changes since its place, None of them for too many."""

    change: int
    opened: Opened | None
    changes: list[Change] | None


class Scope(NamedTuple):
    """Whose changes are told: those of an account's list, of one of its conversations, or both."""

    account_id: str
    conversation_id: str | None = None
    lists: bool = True


EVERYTHING = "3"
"""The key after every row of a change."""

_CONVERSATION = "0"
_KEYS = {Role.USER: "1", Role.ASSISTANT: "2"}
"""Within one change, a conversation comes before its messages, and a question before its answer."""


def account_changes(session: Session, account_ids: Sequence[str]) -> dict[str, int]:
    """The number of the last change of each of these accounts."""
    return dict(
        session.exec(
            select(Account.id, Account.change).where(col(Account.id).in_(account_ids))
        ).all()
    )


def open_page(session: Session, scope: Scope, since: Place | None, *, anew: bool) -> Page:
    """What a page needs that stands at `since` (None: nowhere yet), or that has to begin `anew` with its conversation.

    Raises NotFound when there is no such conversation.
    """
    change = _one_snapshot(session, scope.account_id)
    if since is None or since.change > change:
        return Page(change, _opened(session, scope), None if since else [])
    if not anew:
        _check_told(session, scope, since)
        return Page(change, None, _changes(session, scope, since, change))
    listed = (
        _changes(session, scope._replace(conversation_id=None), since, change)
        if scope.lists
        else []
    )
    return Page(change, _opened(session, scope), listed)


def changes_since(session: Session, scope: Scope, since: Place) -> Page:
    """What has changed since a place, in order."""
    change = _one_snapshot(session, scope.account_id)
    return Page(change, None, _changes(session, scope, since, change))


def generations_of(
    session: Session, conversation_id: str, generation_ids: Sequence[str]
) -> list[Generation]:
    """Those of these generations that are of this conversation."""
    found = select(Generation).where(
        col(Generation.id).in_(generation_ids), Generation.conversation_id == conversation_id
    )
    return list(session.exec(found))


def _one_snapshot(session: Session, account_id: str) -> int:
    """Makes all that this transaction reads of one moment, as it always is on SQLite; the account's last change at that moment."""
    if session.get_bind().dialect.name == "postgresql":
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    return session.exec(select(Account.change).where(Account.id == account_id)).one()


def _check_told(session: Session, scope: Scope, since: Place) -> None:
    """Whoever was not yet told that a conversation was deleted may come back to it; raises NotFound for everybody else."""
    if scope.conversation_id is None:
        return
    conversation = session.get(Conversation, scope.conversation_id)
    if conversation is None or conversation.account_id != scope.account_id:
        raise NotFound("conversation")
    if conversation.deleted_at is not None and Place(conversation.change, EVERYTHING) <= since:
        raise NotFound("conversation")


def _opened(session: Session, scope: Scope) -> Opened:
    if scope.conversation_id is None:
        return Opened(None, [], None, [])
    conversation = readable_conversation(session, scope.conversation_id, scope.account_id)
    said = branch(session, conversation.shown_message_id, limit=OPENED_MESSAGES + 1)
    shown = said[-OPENED_MESSAGES:]
    writing = select(Generation).where(
        Generation.conversation_id == conversation.id, col(Generation.status).in_(ACTIVE)
    )
    return Opened(
        shown_conversation(conversation, active_generations(session, [conversation.id])),
        _shown(session, shown),
        shown[0].message.id if len(said) > OPENED_MESSAGES else None,
        list(session.exec(writing.order_by(col(Generation.id)))),
        conversation,
        shown,
    )


def _changes(session: Session, scope: Scope, since: Place, change: int) -> list[Change] | None:
    """The rows that changed after a place, up to change number `change`; None when they are too many to be told."""
    conversations = select(Conversation).where(
        Conversation.account_id == scope.account_id,
        col(Conversation.change).between(since.change, change),
    )
    if not scope.lists:
        conversations = conversations.where(Conversation.id == scope.conversation_id)
    changed = list(
        session.exec(conversations.order_by(col(Conversation.change)).limit(CONVERSATIONS_MAX + 1))
    )
    said = (
        _said_between(session, scope.conversation_id, since.change, change)
        if scope.conversation_id
        else []
    )
    if len(changed) > CONVERSATIONS_MAX or len(said) > MESSAGES_MAX:
        return None
    writing = active_generations(session, [conversation.id for conversation in changed])
    changes = [
        Change(
            Place(each.change, _CONVERSATION + each.id),
            each.id,
            None if each.deleted_at else shown_conversation(each, writing),
            each,
        )
        for each in changed
    ]
    changes += [
        Change(
            Place(each.message.change, _KEYS[each.message.role] + each.message.id),
            each.message.id,
            shown,
            each,
        )
        for each, shown in zip(said, _shown(session, said), strict=True)
    ]
    return sorted((each for each in changes if each.place > since), key=lambda each: each.place)


def _said_between(session: Session, conversation_id: str, since: int, change: int) -> list[Said]:
    rows = session.exec(
        select(Message, Generation)
        .outerjoin(Generation, col(Generation.id) == col(Message.generation_id))
        .where(
            Message.conversation_id == conversation_id, col(Message.change).between(since, change)
        )
        .order_by(col(Message.change))
        .limit(MESSAGES_MAX + 1)
    )
    return [Said(message, generation) for message, generation in rows]


def _shown(session: Session, said: list[Said]) -> list[dict[str, Any]]:
    beside = siblings(session, [each.message for each in said])
    return [shown_message(each, beside[each.message.id]) for each in said]
