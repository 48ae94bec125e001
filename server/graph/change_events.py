"""The events of change feeds in the graph: of a conversation, and of the account's list."""

from collections.abc import Hashable
from typing import assert_never

import strawberry

from server.changes import follower
from server.changes.follower import AnswerEvent, ChangeEvent, Opened
from server.graph.events import ConversationEvent, generation_event
from server.graph.types import Conversation, Generation, Message
from server.history.feed import ConversationChange, MessageChange


@strawberry.interface(
    description="One event of the list of conversations. Kinds of events may be added: select "
    "`cursor` and `__typename` of every event."
)
class ConversationsEvent:
    cursor: str = strawberry.field(
        description="The stream resumes after this event when this is given as `after`."
    )


@strawberry.type(
    description="The current state of the conversation. Replaces the client's state. Comes first "
    "without `after`, and where events cannot be sent one by one."
)
class ConversationOpened(ConversationEvent):
    conversation: Conversation = strawberry.field(description="The conversation.")
    messages: list[Message] = strawberry.field(
        description="The newest 50 messages of the shown branch, oldest first."
    )
    has_older_messages: bool = strawberry.field(
        description="Whether the branch has older messages."
    )
    generations: list[Generation] = strawberry.field(
        description="The active generations. Their events follow, from after their `seq`."
    )


@strawberry.type(
    description="The list is followed from here on: read it now. Comes first without `after`."
)
class ConversationsOpened(ConversationsEvent):
    pass


@strawberry.type(description="A conversation was created or changed.")
class ConversationChanged(ConversationEvent, ConversationsEvent):
    conversation: Conversation = strawberry.field(description="Its current state.")


@strawberry.type(description="A conversation was deleted.")
class ConversationRemoved(ConversationEvent, ConversationsEvent):
    conversation_id: strawberry.ID = strawberry.field(description="Its id.")


@strawberry.type(
    description="A message was created or changed. For an answer, sent when its generation starts "
    "and when it ends."
)
class MessageChanged(ConversationEvent):
    message: Message = strawberry.field(description="Its current state.")


@strawberry.type(
    description="Too much has changed to send it one by one: read the current state again."
)
class Resync(ConversationEvent, ConversationsEvent):
    pass


CHANGE_KINDS = (
    ConversationOpened,
    ConversationsOpened,
    ConversationChanged,
    ConversationRemoved,
    MessageChanged,
    Resync,
)


def change_event(event: ChangeEvent) -> object | None:
    """An event in the graph; None for an answer's event of a kind that a newer server wrote."""
    cursor = event.cursor
    match event.what:
        case AnswerEvent(generation_id, of_answer):
            return generation_event(generation_id, of_answer, cursor)
        case Opened(None, _):
            return ConversationsOpened(cursor=cursor)
        case Opened(opened, active):
            assert opened is not None, "matched above"
            return ConversationOpened(
                cursor=cursor,
                conversation=Conversation.of(opened.row.conversation),
                messages=[Message.of(row, row.parts) for row in opened.messages],
                has_older_messages=opened.before is not None,
                generations=[Generation.of(row, written) for row, written in active],
            )
        case ConversationChange(row=None, id=id):
            return ConversationRemoved(cursor=cursor, conversation_id=strawberry.ID(id))
        case ConversationChange(row=row):
            assert row is not None, "matched above"
            return ConversationChanged(
                cursor=cursor, conversation=Conversation.of(row.conversation)
            )
        case MessageChange(row=row):
            return MessageChanged(cursor=cursor, message=Message.of(row, row.parts))
        case follower.Resync():
            return Resync(cursor=cursor)
        case _:
            assert_never(event.what)


def change_event_key(event: ChangeEvent) -> Hashable | None:
    """A key for an answer's event, equal for all readers at the same cursor; else None."""
    return event if isinstance(event.what, AnswerEvent) else None
