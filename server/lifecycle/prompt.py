"""What of a conversation is sent to a model, and an estimate of its tokens.

Cancelled answers are sent with what they have, and so are answers whose continuation failed; other
failed answers, empty ones and tool calls without a result are not.
"""

from sqlmodel import Session

from server.history.tables import ACTIVE, Generation, Role, Status
from server.history.tree import PromptMessage, prompt_branch
from server.lifecycle.usage import tokens_in, tokens_of
from server.providers.base import Turn

CONTEXT_MAX_MESSAGES = 2_000


def prompt_tokens(session: Session, generation: Generation) -> int:
    """An estimate of the tokens a generation's model was sent, made without that model."""
    branch = prompt_branch(session, generation.question_id, limit=CONTEXT_MAX_MESSAGES)
    in_turns = sum(tokens_in(turn.parts) for turn in map(turn_of, branch) if turn is not None)
    return tokens_of(generation.options.get("system_prompt") or "") + in_turns


def turn_of(message: PromptMessage) -> Turn | None:
    """What a model is sent of a message; None if it is not sent."""
    if message.role is Role.USER:
        return Turn(Role.USER, message.parts)
    if message.status in ACTIVE or (message.status is Status.FAILED and not message.continues):
        return None
    answered = {part["call_id"] for part in message.parts if part["type"] == "tool_result"}
    parts = [
        part
        for part in message.parts
        if (part["type"] == "text" and part["text"])
        or part["type"] == "tool_result"
        or (part["type"] == "tool_call" and part["call_id"] in answered)
    ]
    return Turn(Role.ASSISTANT, parts) if parts else None
