"""Writes a long history directly into SQL.

`python -m server.bench.seed --email E --conversations N --messages N` fills the database of the
settings.
"""

import argparse
import asyncio
import random
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from sqlmodel import Session, select

from server.history.database import open_database
from server.history.search import index_message, index_title
from server.history.tables import (
    ACCOUNTS,
    CONVERSATIONS,
    GENERATIONS,
    MESSAGES,
    Role,
    Status,
    User,
    now,
)
from server.ids import Prefix, new_id
from server.settings import load_settings

COMMON: Final = ("tide", "water", "the", "of", "and", "harbour", "when", "high", "low", "is")
WORDS: Final = 20_000
WORDS_PER_MESSAGE: Final = 40
CONVERSATIONS_AT_ONCE: Final = 500


def main() -> None:
    """Writes the history, and prints one line at the end."""
    parser = argparse.ArgumentParser(prog="server.bench.seed", description=__doc__)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--email", required=True, help="the user whose account gets the history")
    parser.add_argument("--conversations", type=int, required=True)
    parser.add_argument(
        "--messages", type=int, required=True, help="the total number of questions and answers"
    )
    asked = parser.parse_args()
    settings = load_settings(None, asked.data_dir)
    asyncio.run(_seed(settings.database_url, asked.email, asked.conversations, asked.messages))
    print(f"seeded {asked.conversations} conversations")


async def _seed(url: str, email: str, conversations: int, messages: int) -> None:
    exchanges = max(1, messages // 2 // conversations)
    async with open_database(url) as database:
        account_id = await database.write(_account_of, email)
        for start in range(0, conversations, CONVERSATIONS_AT_ONCE):
            numbers = range(start, min(start + CONVERSATIONS_AT_ONCE, conversations))
            await database.write(seed, account_id, numbers, exchanges)


def seed(session: Session, account_id: str, numbers: Sequence[int], exchanges: int) -> None:
    """Writes conversations with this number of exchanges each, with the rows of real ones."""
    conversations, messages, generations, said = [], [], [], []
    for number in numbers:
        rng = random.Random(number)
        at = now() - timedelta(minutes=200_000 - number)
        conversation_id, leaf_id = new_id(Prefix.CONVERSATION), None
        index_title(session, account_id, conversation_id, title := _text(rng, 6))
        for _ in range(exchanges):
            question, answer, generation = _exchange(rng, account_id, conversation_id, leaf_id, at)
            leaf_id = answer["id"]
            messages += [question, answer]
            generations.append(generation)
            said += [(question["id"], question["parts"]), (answer["id"], generation["parts"])]
        for message_id, parts in said:
            index_message(session, account_id, conversation_id, message_id, parts[0]["text"])
        said.clear()
        conversations.append(_conversation(account_id, conversation_id, title, leaf_id, at, number))
    session.execute(CONVERSATIONS.insert(), conversations)
    session.execute(MESSAGES.insert(), messages)
    session.execute(GENERATIONS.insert(), generations)


def _account_of(session: Session, email: str) -> str:
    account_id: str = session.exec(select(User.account_id).where(User.email == email)).one()
    session.execute(ACCOUNTS.update().where(ACCOUNTS.c.id == account_id).values(change=1_000_000))
    return account_id


def _words(rng: random.Random) -> Iterator[str]:
    while True:
        yield (
            rng.choice(COMMON) if rng.random() < 0.25 else f"w{int(rng.paretovariate(0.6)) % WORDS}"
        )


def _text(rng: random.Random, words: int) -> str:
    return " ".join(word for _, word in zip(range(words), _words(rng), strict=False))


def _conversation(
    account_id: str, id: str, title: str, leaf_id: str | None, at: Any, number: int
) -> dict[str, Any]:
    return {
        "id": id,
        "account_id": account_id,
        "title": title,
        "titled_by_person": False,
        "title_due": False,
        "pinned": number % 1000 == 0,
        "archived": False,
        "model": "demo",
        "metadata": {},
        "shown_message_id": leaf_id,
        "created_at": at,
        "updated_at": at,
        "change": number + 1,
    }


def _exchange(
    rng: random.Random, account_id: str, conversation_id: str, parent_id: str | None, at: Any
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A question, its answer, and the generation that wrote it."""
    question_id, answer_id, generation_id = (
        new_id(Prefix.MESSAGE),
        new_id(Prefix.MESSAGE),
        new_id(Prefix.GENERATION),
    )
    common = {
        "conversation_id": conversation_id,
        "position": 0,
        "metadata": {},
        "created_at": at,
        "change": 1,
    }
    asked, answered = ([{"type": "text", "text": _text(rng, WORDS_PER_MESSAGE)}] for _ in range(2))
    question = common | {
        "id": question_id,
        "parent_id": parent_id,
        "role": Role.USER,
        "parts": asked,
        "generation_id": None,
    }
    answer = common | {
        "id": answer_id,
        "parent_id": question_id,
        "role": Role.ASSISTANT,
        "parts": None,
        "generation_id": generation_id,
    }
    generation = {
        "id": generation_id,
        "account_id": account_id,
        "conversation_id": conversation_id,
        "question_id": question_id,
        "message_id": answer_id,
        "model": "demo",
        "options": {},
        "status": Status.COMPLETED,
        "attempt": 1,
        "crashes": 0,
        "beat": 0,
        "parts": answered,
        "seq": 9,
        "finish_reason": "stop",
        "messages_left_out": 0,
        "sealed": True,
        "created_at": at,
        "started_at": at,
        "finished_at": at,
    }
    return question, answer, generation


if __name__ == "__main__":
    main()
