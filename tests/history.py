"""Long histories, inserted at once."""

from typing import Any

from sqlmodel import Session

from server.history.tables import (
    CONVERSATIONS,
    GENERATIONS,
    MESSAGES,
    Generation,
    Role,
    Status,
    now,
)
from server.ids import Prefix, new_id


def grow(
    session: Session, conversation_id: str, leaf_id: str, exchanges: int, text: str = "word " * 50
) -> None:
    """Add this many questions and answers below a message."""
    like = session.get_one(
        Generation,
        session.execute(MESSAGES.select().where(MESSAGES.c.id == leaf_id)).one().generation_id,
    )
    messages: list[dict[str, Any]] = []
    generations: list[dict[str, Any]] = []
    content = [{"type": "text", "text": text}]
    common = {
        "conversation_id": conversation_id,
        "position": 0,
        "metadata": {},
        "created_at": now(),
        "change": 1,
    }
    for _ in range(exchanges):
        question_id, answer_id, generation_id = (
            new_id(Prefix.MESSAGE),
            new_id(Prefix.MESSAGE),
            new_id(Prefix.GENERATION),
        )
        messages += [
            common
            | {
                "id": question_id,
                "parent_id": leaf_id,
                "role": Role.USER,
                "parts": content,
                "generation_id": None,
            },
            common
            | {
                "id": answer_id,
                "parent_id": question_id,
                "role": Role.ASSISTANT,
                "parts": None,
                "generation_id": generation_id,
            },
        ]
        values = like.model_dump() | {
            "id": generation_id,
            "question_id": question_id,
            "message_id": answer_id,
        }
        generations.append(values | {"status": Status.COMPLETED, "parts": content, "sealed": True})
        leaf_id = answer_id
    session.execute(MESSAGES.insert(), messages)
    session.execute(GENERATIONS.insert(), generations)
    session.execute(
        CONVERSATIONS.update()
        .where(CONVERSATIONS.c.id == conversation_id)
        .values(shown_message_id=leaf_id)
    )
