"""Mutations: each does one thing, in one transaction, by calling the verb for it."""

from typing import Annotated, Any, Self, TypeVar

import strawberry

from server.graph import inputs
from server.graph.context import Context, Info
from server.graph.inputs import body_of
from server.graph.loaders import Loaders
from server.graph.types import Conversation, Generation, Message
from server.graph.viewer import ApiKey
from server.history.messages import MessageRow
from server.history.turns import TurnRows, turn_rows
from server.verbs import conversations, generations, keys
from server.verbs.ask import Continue, Edit, Regenerate, Request, Send, ask
from server.verbs.inputs import (
    AnswerOptions,
    ChangeConversation,
    EditMessage,
    NewConversation,
    NewKey,
    SendMessage,
    validated,
    validated_key,
    validated_wait_s,
)


@strawberry.interface(
    description="The answer that was requested. Follow `generation` with the subscription "
    "`generationEvents`."
)
class RequestedAnswerPayload:
    conversation: Conversation = strawberry.field(
        description="The conversation, which now shows the answer."
    )
    question: Message = strawberry.field(description="The question.")
    answer: Message = strawberry.field(description="The answer, which is being generated.")
    generation: Generation = strawberry.field(description="The generation of the answer.")
    replayed: bool = strawberry.field(
        description="Whether an earlier call with the same idempotency key requested it."
    )

    @classmethod
    def of(cls, rows: TurnRows, loaders: Loaders, *, replayed: bool) -> Self:
        return cls(
            conversation=Conversation.of(rows.conversation),
            question=Message.of(MessageRow(rows.question, None), loaders),
            answer=Message.of(MessageRow(rows.answer, rows.generation), loaders),
            generation=Generation.of(rows.generation),
            replayed=replayed,
        )


@strawberry.type(description="A message was sent.")
class SendMessagePayload(RequestedAnswerPayload):
    pass


@strawberry.type(description="A question was edited.")
class EditMessagePayload(RequestedAnswerPayload):
    pass


@strawberry.type(description="Another answer was requested.")
class RegenerateMessagePayload(RequestedAnswerPayload):
    pass


@strawberry.type(description="More of an answer was requested.")
class ContinueMessagePayload(RequestedAnswerPayload):
    pass


@strawberry.type(description="A conversation was created.")
class CreateConversationPayload:
    conversation: Conversation = strawberry.field(description="The conversation.")


@strawberry.type(description="A conversation was changed.")
class UpdateConversationPayload:
    conversation: Conversation = strawberry.field(description="The changed conversation.")


@strawberry.type(description="A conversation was deleted. It can be restored.")
class DeleteConversationPayload:
    conversation_id: strawberry.ID = strawberry.field(
        description="The id of the deleted conversation."
    )


@strawberry.type(
    description="A conversation was restored. Answers that its deletion cancelled stay cancelled."
)
class RestoreConversationPayload:
    conversation: Conversation = strawberry.field(description="The conversation.")


@strawberry.type(description="A generation was cancelled, or had already ended.")
class CancelGenerationPayload:
    generation: Generation = strawberry.field(
        description="The generation; still active if `waitS` was too short."
    )


@strawberry.type(description="An API key was created.")
class CreateApiKeyPayload:
    api_key: ApiKey = strawberry.field(description="The key.")
    secret: str = strawberry.field(
        description="The secret, for `Authorization: Bearer <secret>`. It is shown only once."
    )


@strawberry.type(description="An API key was revoked. Its open streams end within seconds.")
class RevokeApiKeyPayload:
    api_key: ApiKey = strawberry.field(description="The key.")


def _input(description: str) -> Any:
    return strawberry.argument(description=description)


@strawberry.type(
    description="Changes. An object that does not exist, or is not yours, is the error `not_found`."
)
class Mutation:
    @strawberry.mutation(
        description="Sends a message and requests its answer; without `conversationId`, in a new "
        "conversation."
    )
    async def send_message(
        self, info: Info, input: Annotated[inputs.SendMessageInput, _input("The message.")]
    ) -> SendMessagePayload:
        request = Send(validated(SendMessage, body_of(input)))
        return await _ask(info, input, request, SendMessagePayload)

    @strawberry.mutation(description="Adds an edited sibling of a question, and its answer.")
    async def edit_message(
        self, info: Info, input: Annotated[inputs.EditMessageInput, _input("The question.")]
    ) -> EditMessagePayload:
        request = Edit(input.id, validated(EditMessage, body_of(input)))
        return await _ask(info, input, request, EditMessagePayload)

    @strawberry.mutation(description="Requests another answer to the same question.")
    async def regenerate_message(
        self, info: Info, input: Annotated[inputs.RegenerateMessageInput, _input("The answer.")]
    ) -> RegenerateMessagePayload:
        request = Regenerate(input.id, validated(AnswerOptions, body_of(input)))
        return await _ask(info, input, request, RegenerateMessagePayload)

    @strawberry.mutation(
        description="Continues an answer that was cut short, or restarts one that failed or was "
        "cancelled."
    )
    async def continue_message(
        self, info: Info, input: Annotated[inputs.ContinueMessageInput, _input("The answer.")]
    ) -> ContinueMessagePayload:
        request = Continue(input.id, validated(AnswerOptions, body_of(input)))
        return await _ask(info, input, request, ContinueMessagePayload)

    @strawberry.mutation(
        description="Cancels a generation, and waits briefly for its end. Idempotent."
    )
    async def cancel_generation(
        self, info: Info, input: Annotated[inputs.CancelGenerationInput, _input("The generation.")]
    ) -> CancelGenerationPayload:
        context, wait_s = _fresh_context(info), validated_wait_s(input.wait_s, "/wait_s")
        cancelled = await generations.cancel(
            context.services, context.caller, input.id, wait_s=wait_s
        )
        return CancelGenerationPayload(generation=Generation.of(cancelled))

    @strawberry.mutation(description="Creates a conversation without messages.")
    async def create_conversation(
        self,
        info: Info,
        input: Annotated[inputs.CreateConversationInput, _input("The conversation.")],
    ) -> CreateConversationPayload:
        context, new = _fresh_context(info), validated(NewConversation, body_of(input))
        row = await conversations.create(context.services, context.caller, new)
        return CreateConversationPayload(conversation=Conversation.of(row))

    @strawberry.mutation(description="Changes the given fields of a conversation.")
    async def update_conversation(
        self, info: Info, input: Annotated[inputs.UpdateConversationInput, _input("The changes.")]
    ) -> UpdateConversationPayload:
        context, changes = _fresh_context(info), validated(ChangeConversation, body_of(input))
        row = await conversations.change(context.services, context.caller, input.id, changes)
        return UpdateConversationPayload(conversation=Conversation.of(row.conversation))

    @strawberry.mutation(
        description="Hides a conversation at once, and cancels its active answers."
    )
    async def delete_conversation(
        self,
        info: Info,
        input: Annotated[inputs.DeleteConversationInput, _input("The conversation.")],
    ) -> DeleteConversationPayload:
        context = _fresh_context(info)
        await conversations.delete(context.services, context.caller, input.id)
        return DeleteConversationPayload(conversation_id=input.id)

    @strawberry.mutation(description="Undoes the deletion of a conversation. Idempotent.")
    async def restore_conversation(
        self,
        info: Info,
        input: Annotated[inputs.RestoreConversationInput, _input("The conversation.")],
    ) -> RestoreConversationPayload:
        context = _fresh_context(info)
        row = await conversations.restore(context.services, context.caller, input.id)
        return RestoreConversationPayload(conversation=Conversation.of(row))

    @strawberry.mutation(description="Creates an API key of the account.")
    async def create_api_key(
        self, info: Info, input: Annotated[inputs.CreateApiKeyInput, _input("The key.")]
    ) -> CreateApiKeyPayload:
        context, new = _fresh_context(info), validated(NewKey, body_of(input))
        created = await keys.create(context.services, context.caller, new)
        return CreateApiKeyPayload(api_key=ApiKey.of(created.row), secret=created.secret)

    @strawberry.mutation(description="Revokes an API key of the account for good. Idempotent.")
    async def revoke_api_key(
        self, info: Info, input: Annotated[inputs.RevokeApiKeyInput, _input("The key.")]
    ) -> RevokeApiKeyPayload:
        context = _fresh_context(info)
        row = await keys.revoke(context.services, context.caller, input.id, context.callers)
        return RevokeApiKeyPayload(api_key=ApiKey.of(row))


P = TypeVar("P", bound=RequestedAnswerPayload)


def _fresh_context(info: Info) -> Context:
    """The context without cached rows, which an earlier mutation may have changed."""
    info.context.forget()
    return info.context


async def _ask(
    info: Info, input: inputs.AnswerOptionsInput, request: Request, payload: type[P]
) -> P:
    context = _fresh_context(info)
    services, caller = context.services, context.caller
    key = validated_key(
        None if input.idempotency_key is strawberry.UNSET else input.idempotency_key
    )
    turn = await ask(services, caller, request, key=key)
    rows = await services.database.read(turn_rows, turn.generation.id)
    return payload.of(rows, context.loaders, replayed=turn.replayed)
