"""The tables: accounts and credentials, conversations and messages, and generations."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, cast

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Enum,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR
from sqlalchemy.orm import defer
from sqlalchemy.orm.interfaces import ORMOption
from sqlmodel import Field, SQLModel

from server.parts import Parts

SQLModel.metadata.naming_convention = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
).naming_convention


class Role(StrEnum):
    USER = "user"
    ASSISTANT = "assistant"


class Status(StrEnum):
    """The state of a generation; the last three are terminal."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def terminal(self) -> bool:
        """Whether no other state can follow."""
        return self not in ACTIVE


ACTIVE: Final = (Status.QUEUED, Status.RUNNING)


def _names(of: type[StrEnum]) -> Enum:
    """A column for a StrEnum, stored as text."""
    return Enum(
        of,
        native_enum=False,
        create_constraint=False,
        length=16,
        values_callable=lambda members: [m.value for m in members],
    )


Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


class UtcTime(TypeDecorator[datetime]):
    """A time in UTC. SQLite does not store the zone; it is added when a value is read."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(
        self,
        value: datetime | None,
        dialect: Dialect,  # noqa: ARG002
    ) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


def now() -> datetime:
    """The current time in UTC. Wall clocks differ, so it never decides about ownership."""
    return datetime.now(UTC)


class Account(SQLModel, table=True):
    """The owner of conversations, keys, limits and the bill.

    Every change that a page shows locks this row and raises `change`.
    """

    id: str = Field(primary_key=True)
    name: str = ""
    change: int = Field(default=0, sa_type=BigInteger)
    created_at: datetime = Field(default_factory=now, sa_type=UtcTime)


class User(SQLModel, table=True):
    """A person who signs in."""

    __tablename__ = "app_user"  # `user` is a reserved word in PostgreSQL

    id: str = Field(primary_key=True)
    account_id: str = Field(foreign_key="account.id", index=True)
    email: str = Field(unique=True)
    created_at: datetime = Field(default_factory=now, sa_type=UtcTime)


class ApiKey(SQLModel, table=True):
    """An API key of an account. Only the first characters and SHA-256 of its secret are stored."""

    __tablename__ = "api_key"

    id: str = Field(primary_key=True)
    account_id: str = Field(foreign_key="account.id", index=True)
    name: str
    prefix: str
    sha256: str = Field(unique=True)
    created_at: datetime = Field(default_factory=now, sa_type=UtcTime)
    expires_at: datetime | None = Field(default=None, sa_type=UtcTime)
    revoked_at: datetime | None = Field(default=None, sa_type=UtcTime)
    made_by: str | None = Field(default=None, index=True)  # the key that authenticated its creation


class BrowserSession(SQLModel, table=True):
    """A signed-in browser of a guest or a user, identified by the SHA-256 of its cookie."""

    __tablename__ = "browser_session"

    sha256: str = Field(primary_key=True)
    account_id: str = Field(foreign_key="account.id", index=True)
    user_id: str | None = Field(default=None, foreign_key="app_user.id")
    created_at: datetime = Field(default_factory=now, sa_type=UtcTime)
    expires_at: datetime = Field(sa_type=UtcTime)


class SignInLink(SQLModel, table=True):
    """A link that signs in one browser, once."""

    __tablename__ = "sign_in_link"

    sha256: str = Field(primary_key=True)
    user_id: str = Field(foreign_key="app_user.id", index=True)
    expires_at: datetime = Field(sa_type=UtcTime)
    used_at: datetime | None = Field(default=None, sa_type=UtcTime)


class Conversation(SQLModel, table=True):
    """A tree of messages; `shown_message_id` is the leaf whose branch is shown."""

    __table_args__ = (
        Index("ix_conversation_list", "account_id", "updated_at", "id"),
        Index("ix_conversation_change", "account_id", "change"),
        Index("ix_conversation_created", "account_id", "created_at", "id"),
        Index(
            "ix_conversation_title_due",
            "created_at",
            sqlite_where=text("title_due"),
            postgresql_where=text("title_due"),
        ),
        Index(
            "ix_conversation_index_due",
            "id",
            sqlite_where=text("index_due"),
            postgresql_where=text("index_due"),
        ),
    )

    id: str = Field(primary_key=True)
    account_id: str = Field(foreign_key="account.id")
    title: str = ""
    titled_by_person: bool = False
    # Until a model has set a title, it is the first words of the first question.
    title_due: bool = Field(default=True, sa_column_kwargs={"server_default": false()})
    # It came from another account, under which the search index still has some of it.
    index_due: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    pinned: bool = False
    archived: bool = False
    model: str
    system_prompt: str | None = None
    labels: dict[str, str] = Field(
        default_factory=dict, sa_column=Column("metadata", Json, nullable=False)
    )
    shown_message_id: str | None = None
    created_at: datetime = Field(default_factory=now, sa_type=UtcTime)
    updated_at: datetime = Field(default_factory=now, sa_type=UtcTime)
    deleted_at: datetime | None = Field(default=None, sa_type=UtcTime)
    change: int = Field(default=0, sa_type=BigInteger)


class Message(SQLModel, table=True):
    """A question with its parts, or an answer, whose parts are those of its last generation."""

    __table_args__ = (
        Index("ix_message_tree", "conversation_id", "parent_id", "position"),
        Index("ix_message_change", "conversation_id", "change"),
    )

    id: str = Field(primary_key=True)
    conversation_id: str = Field(foreign_key="conversation.id")
    parent_id: str | None = None
    position: int = 0  # among its siblings, in the order of their requests
    role: Role = Field(sa_type=_names(Role))
    parts: Parts | None = Field(default=None, sa_type=Json)  # of a question
    generation_id: str | None = None  # of an answer
    labels: dict[str, str] = Field(
        default_factory=dict, sa_column=Column("metadata", Json, nullable=False)
    )
    created_at: datetime = Field(default_factory=now, sa_type=UtcTime)
    change: int = Field(default=0, sa_type=BigInteger)


def _partial_index(name: str, column: str, where: str) -> Index:
    return Index(name, column, sqlite_where=text(where), postgresql_where=text(where))


class Generation(SQLModel, table=True):
    """One run of a model that writes an answer: its request, its owner, and its result.

    `parts` is the content as of event `seq`: a checkpoint while the answer is written, everything
    once it has ended. `attempt` is the fencing token: every write of a worker requires its attempt.
    `beat` is how long earlier owners took, in milliseconds, and `claimed_beat` is the beat of the
    owner when it claimed the row.
    """

    __table_args__ = (
        _partial_index("ix_generation_running", "owner", "status = 'running'"),
        _partial_index("ix_generation_queued", "id", "status = 'queued'"),
        _partial_index(
            "ix_generation_cancelling",
            "id",
            "cancel_requested_at IS NOT NULL AND finished_at IS NULL",
        ),
        _partial_index("ix_generation_unsealed", "id", "finished_at IS NOT NULL AND NOT sealed"),
        Index(
            "ix_generation_active",
            "account_id",
            sqlite_where=text("finished_at IS NULL"),
            postgresql_where=text("finished_at IS NULL"),
        ),
    )

    id: str = Field(primary_key=True)
    account_id: str = Field(foreign_key="account.id")
    conversation_id: str = Field(foreign_key="conversation.id", index=True)
    question_id: str
    message_id: str = Field(index=True)
    previous_id: str | None = None  # the generation whose content this one continues
    model: str
    options: dict[str, Any] = Field(default_factory=dict, sa_type=Json)

    status: Status = Field(default=Status.QUEUED, sa_type=_names(Status))
    attempt: int = 0
    crashes: int = 0
    owner: str | None = None
    beat: int = Field(default=0, sa_type=BigInteger)
    claimed_beat: int = Field(
        default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": text("0")}
    )
    cancel_requested_at: datetime | None = Field(default=None, sa_type=UtcTime)

    parts: Parts = Field(default_factory=list, sa_type=Json)
    seq: int = Field(default=1, sa_type=BigInteger)
    # The attempt whose owner handed it over; `seq` is the last event it wrote.
    handed_over: int | None = None
    finish_reason: str | None = None
    usage: dict[str, Any] | None = Field(default=None, sa_type=Json)
    error: dict[str, Any] | None = Field(default=None, sa_type=Json)
    messages_left_out: int = 0
    sealed: bool = False  # the log has the terminal event or is gone

    created_at: datetime = Field(default_factory=now, sa_type=UtcTime)
    started_at: datetime | None = Field(default=None, sa_type=UtcTime)
    first_token_at: datetime | None = Field(default=None, sa_type=UtcTime)
    finished_at: datetime | None = Field(default=None, sa_type=UtcTime)


class Worker(SQLModel, table=True):
    """A worker process. Others take over what it owns when `beat` has not risen for `lease_s`.

    `beat` is how long it has run, in milliseconds by its own monotonic clock.
    """

    name: str = Field(primary_key=True)
    beat: int = Field(default=0, sa_type=BigInteger)
    lease_s: float
    created_at: datetime = Field(default_factory=now, sa_type=UtcTime)


_IS_TITLE = text("message_id IS NULL")


class SearchEntry(SQLModel, table=True):
    """An entry of the search index: of a message or, without one, of a conversation's title."""

    __tablename__ = "search_entry"
    __table_args__ = (
        Index(
            "ix_search_entry_title",
            "conversation_id",
            sqlite_where=_IS_TITLE,
            postgresql_where=_IS_TITLE,
        ),
        Index("ix_search_entry_words", "words", postgresql_using="gin").ddl_if(
            dialect="postgresql"
        ),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(
        default=None, primary_key=True, sa_type=BigInteger().with_variant(Integer(), "sqlite")
    )
    account_id: str
    conversation_id: str
    message_id: str | None = Field(default=None, index=True)
    length: int  # in words
    words: str | None = Field(
        default=None, sa_type=Text().with_variant(TSVECTOR(), "postgresql")
    )  # SQLite keeps them in `search_index`


class Idempotency(SQLModel, table=True):
    """The first use of an Idempotency-Key."""

    account_id: str = Field(primary_key=True, foreign_key="account.id")
    operation: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    body_sha256: str
    generation_id: str
    created_at: datetime = Field(default_factory=now, sa_type=UtcTime, index=True)


def _without(*columns: Any) -> tuple[ORMOption, ...]:
    return tuple(defer(column, raiseload=True) for column in columns)


BARE_CONVERSATION: Final = _without(Conversation.system_prompt)
BARE_MESSAGE: Final = _without(Message.parts)
BARE_GENERATION: Final = _without(Generation.parts, Generation.options)
"""Options of statements whose rows have no large columns; reading such a column is an error."""

ACCOUNTS: Final = cast("Table", Account.__table__)  # type: ignore[attr-defined]  # SQLModel adds it
CONVERSATIONS: Final = cast("Table", Conversation.__table__)  # type: ignore[attr-defined]
MESSAGES: Final = cast("Table", Message.__table__)  # type: ignore[attr-defined]
GENERATIONS: Final = cast("Table", Generation.__table__)  # type: ignore[attr-defined]
SEARCH_ENTRIES: Final = cast("Table", SearchEntry.__table__)  # type: ignore[attr-defined]
WORKERS: Final = cast("Table", Worker.__table__)  # type: ignore[attr-defined]
IDEMPOTENCIES: Final = cast("Table", Idempotency.__table__)  # type: ignore[attr-defined]
"""Tables for statements that are built once (docs/decisions/0007)."""
