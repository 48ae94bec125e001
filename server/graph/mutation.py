"""Mutations: each does one thing, in one transaction, by the rules of the HTTP interface."""

from typing import Annotated, Any, Self

import strawberry

from server.bodies import (
    AnswerOptions,
    ChangeConversation,
    EditMessage,
    NewConversation,
    NewKey,
    SendMessage,
    checked,
    checked_key,
)
from server.errors import Invalid
from server.generate.asking import ask
from server.generate.reading import WAIT_MAX_S, stop_now, wait_for_end
from server.graph import inputs
from server.graph.context import Info
from server.graph.inputs import given
from server.graph.types import Conversation, Generation, Message
from server.graph.viewer import ApiKey
from server.history.accounts import add_own_key, revoke_own_key
from server.history.asking import (
    SHOWN_LEAF,
    Turn,
    continue_message,
    edit_message,
    regenerate_message,
    send_message,
    turn,
)
from server.history.conversations import (
    change_conversation,
    create_conversation,
    delete_conversation,
    restore_conversation,
)
from server.history.generations import readable_generation, request_cancel
from server.history.messages import Said
from server.identity.secrets import new_key


@strawberry.interface(
    description="What was asked for. Follow `generation` with the subscription `generationEvents`."
)
class AskedPayload:
    conversation: Conversation = strawberry.field(
        description="The conversation it is in, which now shows the answer."
    )
    question: Message = strawberry.field(description="The question.")
    answer: Message = strawberry.field(description="The answer, which is being written.")
    generation: Generation = strawberry.field(description="The writing of the answer.")
    replayed: bool = strawberry.field(
        description="Whether this was asked for before, with the same idempotency key."
    )

    @classmethod
    def of(cls, asked: Turn) -> Self:
        return cls(
            conversation=Conversation.of(asked.conversation),
            question=Message.of(Said(asked.question, None)),
            answer=Message.of(Said(asked.answer, asked.generation)),
            generation=Generation.of(asked.generation),
            replayed=asked.replayed,
        )


@strawberry.type(description="A message was sent.")
class SendMessagePayload(AskedPayload):
    pass


@strawberry.type(description="A question was asked in other words.")
class EditMessagePayload(AskedPayload):
    pass


@strawberry.type(description="Another answer was asked for.")
class RegenerateMessagePayload(AskedPayload):
    pass


@strawberry.type(description="More of an answer was asked for.")
class ContinueMessagePayload(AskedPayload):
    pass


@strawberry.type(description="A conversation was created.")
class CreateConversationPayload:
    conversation: Conversation = strawberry.field(description="The conversation.")


@strawberry.type(description="A conversation was changed.")
class UpdateConversationPayload:
    conversation: Conversation = strawberry.field(description="The conversation as it is now.")


@strawberry.type(description="A conversation was deleted. It can be restored.")
class DeleteConversationPayload:
    conversation_id: strawberry.ID = strawberry.field(description="What is gone.")


@strawberry.type(description="A deletion was taken back. Answers that it stopped stay stopped.")
class RestoreConversationPayload:
    conversation: Conversation = strawberry.field(description="The conversation.")


@strawberry.type(description="A generation was stopped, or was over before.")
class CancelGenerationPayload:
    generation: Generation = strawberry.field(
        description="The generation; not over yet where waiting was too short."
    )


@strawberry.type(description="A key was made.")
class CreateApiKeyPayload:
    api_key: ApiKey = strawberry.field(description="The key.")
    secret: str = strawberry.field(
        description="What opens the door: `Authorization: Bearer <secret>`. It is shown this once, and not kept."
    )


@strawberry.type(description="A key was revoked. Streams that it opened end within seconds.")
class RevokeApiKeyPayload:
    api_key: ApiKey = strawberry.field(description="The key.")


def _input(what: str) -> Any:
    return strawberry.argument(description=what)


@strawberry.type(
    description="What can be changed. What is not there, or not yours, is the error `not_found`."
)
class Mutation:
    @strawberry.mutation(
        description="Sends a message and asks for its answer, in a new conversation where none is named."
    )
    async def send_message(
        self, info: Info, input: Annotated[inputs.SendMessageInput, _input("The message.")]
    ) -> SendMessagePayload:
        body = checked(SendMessage, given(input))
        parent = body.parent_id if "parent_id" in body.model_fields_set else SHOWN_LEAF
        place = {"conversation_id": body.conversation_id, "parent_id": parent}
        return SendMessagePayload.of(
            await _ask(info, input, send_message, body.parts(), body.options(), **place)
        )

    @strawberry.mutation(
        description="Asks a question in other words: a sibling of it, and an answer."
    )
    async def edit_message(
        self, info: Info, input: Annotated[inputs.EditMessageInput, _input("The question.")]
    ) -> EditMessagePayload:
        body = checked(EditMessage, given(input))
        return EditMessagePayload.of(
            await _ask(info, input, edit_message, input.id, body.parts(), body.options())
        )

    @strawberry.mutation(description="Asks for another answer to the same question.")
    async def regenerate_message(
        self, info: Info, input: Annotated[inputs.RegenerateMessageInput, _input("The answer.")]
    ) -> RegenerateMessagePayload:
        body = checked(AnswerOptions, given(input))
        return RegenerateMessagePayload.of(
            await _ask(info, input, regenerate_message, input.id, body.options())
        )

    @strawberry.mutation(
        description="Goes on with an answer that was cut short, or starts one over that failed or was stopped."
    )
    async def continue_message(
        self, info: Info, input: Annotated[inputs.ContinueMessageInput, _input("The answer.")]
    ) -> ContinueMessagePayload:
        body = checked(AnswerOptions, given(input))
        return ContinueMessagePayload.of(
            await _ask(info, input, continue_message, input.id, body.options())
        )

    @strawberry.mutation(
        description="Stops a generation, and waits a little for its end. Again is harmless."
    )
    async def cancel_generation(
        self, info: Info, input: Annotated[inputs.CancelGenerationInput, _input("The generation.")]
    ) -> CancelGenerationPayload:
        context, resources = info.context, info.context.resources
        if not 0 <= input.wait_s <= WAIT_MAX_S:
            detail = f"a number of seconds from 0 to {WAIT_MAX_S:g} is allowed"
            raise Invalid(
                "invalid_request",
                f"wait_s: {detail}.",
                errors=[{"pointer": "/wait_s", "detail": detail}],
            )
        generation = await resources.database.write(request_cancel, input.id, context.account_id)
        if not generation.status.terminal:
            await stop_now(resources.settler, resources.queue, generation)
            await wait_for_end(context.feeds, generation, input.wait_s)
            generation = await resources.database.read(
                readable_generation, input.id, context.account_id
            )
        return CancelGenerationPayload(generation=Generation.of(generation))

    @strawberry.mutation(description="Creates a conversation in which nothing was said yet.")
    async def create_conversation(
        self,
        info: Info,
        input: Annotated[inputs.CreateConversationInput, _input("The conversation.")],
    ) -> CreateConversationPayload:
        resources, body = info.context.resources, checked(NewConversation, given(input))
        values = body.model_dump(exclude={"metadata"}) | {
            "labels": body.metadata,
            "model": resources.models.id_of(body.model),
        }
        created = await resources.database.write(
            create_conversation, info.context.account_id, values
        )
        return CreateConversationPayload(conversation=Conversation.of(created))

    @strawberry.mutation(description="Changes what is named of a conversation.")
    async def update_conversation(
        self, info: Info, input: Annotated[inputs.UpdateConversationInput, _input("The changes.")]
    ) -> UpdateConversationPayload:
        resources = info.context.resources
        changes = checked(ChangeConversation, given(input)).changes(resources.models.id_of)
        changed = await resources.database.write(
            change_conversation, input.id, info.context.account_id, changes
        )
        return UpdateConversationPayload(conversation=Conversation.of(changed))

    @strawberry.mutation(
        description="Hides a conversation at once, and stops what is being written in it."
    )
    async def delete_conversation(
        self,
        info: Info,
        input: Annotated[inputs.DeleteConversationInput, _input("The conversation.")],
    ) -> DeleteConversationPayload:
        resources = info.context.resources
        for generation in await resources.database.write(
            delete_conversation, input.id, info.context.account_id
        ):
            await stop_now(resources.settler, resources.queue, generation)
        return DeleteConversationPayload(conversation_id=input.id)

    @strawberry.mutation(
        description="Takes the deletion of a conversation back. Again is harmless."
    )
    async def restore_conversation(
        self,
        info: Info,
        input: Annotated[inputs.RestoreConversationInput, _input("The conversation.")],
    ) -> RestoreConversationPayload:
        restored = await info.context.resources.database.write(
            restore_conversation, input.id, info.context.account_id
        )
        return RestoreConversationPayload(conversation=Conversation.of(restored))

    @strawberry.mutation(description="Makes an API key of the account.")
    async def create_api_key(
        self, info: Info, input: Annotated[inputs.CreateApiKeyInput, _input("The key.")]
    ) -> CreateApiKeyPayload:
        body, key, caller = checked(NewKey, given(input)), new_key(), info.context.caller
        made = await info.context.resources.database.write(
            add_own_key,
            caller.account_id,
            caller.key_id,
            body.name,
            body.expires_at,
            prefix=key.prefix,
            sha256=key.sha256,
        )
        return CreateApiKeyPayload(api_key=ApiKey.of(made), secret=key.secret)

    @strawberry.mutation(description="Ends a key of the account, for good. Again is harmless.")
    async def revoke_api_key(
        self, info: Info, input: Annotated[inputs.RevokeApiKeyInput, _input("The key.")]
    ) -> RevokeApiKeyPayload:
        revoked = await info.context.resources.database.write(
            revoke_own_key, input.id, info.context.account_id
        )
        info.context.callers.forget(revoked.sha256)
        return RevokeApiKeyPayload(api_key=ApiKey.of(revoked))


async def _ask(info: Info, input: inputs.AnswerOptionsInput, *what: Any, **kwargs: Any) -> Turn:
    resources = info.context.resources
    key = checked_key(None if input.idempotency_key is strawberry.UNSET else input.idempotency_key)
    return await ask(
        resources.database,
        resources.queue,
        turn,
        resources.asker(info.context.account_id, key),
        *what,
        **kwargs,
    )
