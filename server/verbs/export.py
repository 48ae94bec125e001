"""Exporting a conversation, page by page, whatever its size."""

from collections.abc import AsyncGenerator

from server.history.conversations import ConversationRow
from server.history.export import (
    ExportPage,
    Key,
    branch_after,
    export_page,
    message_above_page,
)
from server.history.messages import MessageRow
from server.identity.callers import Caller
from server.resources import Services


async def all_branches(
    services: Services, caller: Caller, conversation: ConversationRow
) -> AsyncGenerator[ExportPage, None]:
    """Every message, in no particular order. Raises NotFound once the conversation is deleted."""
    id, database = conversation.conversation.id, services.database
    key: Key | None = None
    while (page := await database.read(export_page, id, caller.account_id, key)).rows:
        yield page
        key = page.next


async def shown_branch(
    services: Services, caller: Caller, conversation: ConversationRow
) -> AsyncGenerator[list[MessageRow], None]:
    """The messages of the shown branch, oldest first. Raises NotFound like `all_branches`."""
    id, database, account_id = conversation.conversation.id, services.database, caller.account_id
    # Upwards first, keeping one message of each page; then down again, page by page.
    leaves: list[str] = []
    leaf = conversation.conversation.shown_message_id
    while leaf is not None:
        leaves.append(leaf)
        leaf = await database.read(message_above_page, id, account_id, leaf)
    after: str | None = None
    for last in reversed(leaves):
        while after != last:
            page = await database.read(branch_after, id, account_id, last, after)
            yield page.items
            after = page.items[-1].message.id
