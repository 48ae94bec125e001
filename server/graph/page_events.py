"""What the change feed tells, in the graph: of one conversation, and of the list of an account's conversations."""

from collections.abc import Hashable
from typing import Any

import strawberry

from server.graph.events import ConversationEvent, generation_event
from server.graph.types import Conversation as ConversationNode
from server.graph.types import Generation, Message
from server.history.messages import Said
from server.history.pages import Change, Opened
from server.history.tables import Conversation
from server.pages.following import PageEvent
from server.stream.events import Event


@strawberry.interface(
    description="One event of the list of conversations. Kinds of events may be added: ask for `cursor` and `__typename` of every one."
)
class ConversationsEvent:
    cursor: str = strawberry.field(
        description="Given as `after`, the stream goes on behind this event."
    )


@strawberry.type(
    description="The conversation as it is now: forget what was known of it. First without `after`, and where events cannot be told singly."
)
class ConversationOpened(ConversationEvent):
    conversation: ConversationNode = strawberry.field(description="The conversation.")
    messages: list[Message] = strawberry.field(
        description="The newest 50 messages of the branch that is shown, the oldest first."
    )
    has_older_messages: bool = strawberry.field(description="Whether the branch has older ones.")
    generations: list[Generation] = strawberry.field(
        description="Those that are not over yet. Their events follow, after their `seq`."
    )


@strawberry.type(
    description="The list is followed from here on: read it now. First without `after`."
)
class ConversationsOpened(ConversationsEvent):
    pass


@strawberry.type(description="A conversation is new, or something of it has changed.")
class ConversationChanged(ConversationEvent, ConversationsEvent):
    conversation: ConversationNode = strawberry.field(description="The conversation as it is now.")


@strawberry.type(description="A conversation was deleted.")
class ConversationRemoved(ConversationEvent, ConversationsEvent):
    conversation_id: strawberry.ID = strawberry.field(description="The conversation.")


@strawberry.type(
    description="A message is new, or something of it has changed. Of an answer it is told when its writing begins, and when it ends."
)
class MessageChanged(ConversationEvent):
    message: Message = strawberry.field(description="The message as it is now.")


@strawberry.type(
    description="More has changed than is told one by one: read again whatever was known."
)
class Resync(ConversationEvent, ConversationsEvent):
    pass


PAGE_KINDS = (
    ConversationOpened,
    ConversationsOpened,
    ConversationChanged,
    ConversationRemoved,
    MessageChanged,
    Resync,
)


def page_event(event: PageEvent) -> object | None:
    """An event of the change feed as the graph tells it; None for one of a kind that a newer server wrote."""
    cursor, told = event.cursor, event.told
    if isinstance(told, Event):
        assert event.generation_id is not None, "it is an answer's"
        return generation_event(event.generation_id, told, cursor)
    match event.rows:
        case Opened():
            return _opened(cursor, told, event.rows)
        case Change(shown=None):
            return ConversationRemoved(cursor=cursor, conversation_id=strawberry.ID(event.rows.id))
        case Change(row=Said() as said):
            return MessageChanged(cursor=cursor, message=Message.of(said))
        case Change(row=Conversation() as row):
            return ConversationChanged(cursor=cursor, conversation=ConversationNode.of(row))
    return Resync(cursor=cursor)


def _opened(cursor: str, told: dict[str, Any], opened: Opened) -> object:
    if opened.row is None:
        return ConversationsOpened(cursor=cursor)
    return ConversationOpened(
        cursor=cursor,
        conversation=ConversationNode.of(opened.row),
        messages=[Message.of(said) for said in opened.said],
        has_older_messages=opened.before is not None,
        generations=[Generation.of_snapshot(shown) for shown in told["generations"]],
    )


def page_event_key(event: PageEvent) -> Hashable | None:
    """What names an event of an answer: the same to every reader who stands at the same place."""
    return event if isinstance(event.told, Event) else None
