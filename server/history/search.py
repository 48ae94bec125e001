"""Full-text search over messages and titles: FTS5 on SQLite, tsvector on PostgreSQL.

Both use the tokenizer of this project.

FTS5 entries are only added; an entry without its row in `search_entry` is never found. A search
does not scan the entries of other accounts: every word of the index begins with the account (FTS5),
or the account is a word of every entry (tsvector).
"""

from typing import Any, NamedTuple

from sqlalchemy import bindparam, delete, select, text, union_all, update
from sqlmodel import Session

from server.history.messages import owned_by
from server.history.tables import ACCOUNTS as A
from server.history.tables import CONVERSATIONS as C
from server.history.tables import GENERATIONS as G
from server.history.tables import MESSAGES as M
from server.history.tables import SEARCH_ENTRIES as E
from server.history.tokenizer import Term, terms_of, words_of
from server.parts import joined_text

RANKED_MAX = 2_000
"""How many of the newest matches are ranked, which limits the cost of common words."""

PAGE = 200
MOVED_CONVERSATIONS_MAX = 100
MOVED_WORDS_MAX = 25_000
"""How much one transaction indexes again, about 0.1 s: on SQLite, others wait for it to write."""

POSITION_MAX = 16_383  # of a tsvector


class Hit(NamedTuple):
    """A message that matches or, without a message, a conversation whose title matches."""

    conversation_id: str
    message_id: str | None


_DELETE_MESSAGE = delete(E).where(E.c.message_id == bindparam("message"))
_DELETE_TITLE = delete(E).where(
    E.c.conversation_id == bindparam("conversation"), E.c.message_id.is_(None)
)
# These bypass SQLAlchemy: every message is indexed, and building a statement takes longer than
# running one of them.
_NEW_ENTRY_SQLITE = (
    "INSERT INTO search_entry (account_id, conversation_id, message_id, length) VALUES (?, ?, ?, ?)"
)
_NEW_WORDS_SQLITE = "INSERT INTO search_index (rowid, words) VALUES (?, ?)"
_NEW_ENTRY_POSTGRES = text("""
    INSERT INTO search_entry (account_id, conversation_id, message_id, length, words)
    VALUES (:account_id, :conversation_id, :message_id, :length,
            CAST(CAST(:words AS text) AS tsvector))""")

# bm25 counts every match of each word. Beyond RANKED_MAX matches this takes longer than everything
# else, so the shorter message wins instead.
_IS_COMMON_SQLITE = text("""
    SELECT count(*) >= :ranked FROM (
        SELECT 1 FROM search_index WHERE search_index MATCH :query
        ORDER BY rowid DESC LIMIT :ranked)""")
_FIND_SQLITE = text("""
    SELECT conversation_id, message_id FROM (
        SELECT e.id, e.conversation_id, e.message_id,
               CASE WHEN :common THEN e.length ELSE bm25(search_index) END AS score
        FROM search_index JOIN search_entry e ON e.id = search_index.rowid
             JOIN conversation c ON c.id = e.conversation_id
        WHERE search_index MATCH :query AND e.account_id = :account AND c.deleted_at IS NULL
        ORDER BY search_index.rowid DESC LIMIT :ranked)
    ORDER BY message_id IS NOT NULL, score, id DESC LIMIT :most OFFSET :offset""")
_FIND_POSTGRES = text("""
    SELECT conversation_id, message_id FROM (
        SELECT e.id, e.conversation_id, e.message_id, ts_rank(e.words, q) AS score
        FROM search_entry e JOIN conversation c ON c.id = e.conversation_id,
             CAST(CAST(:query AS text) AS tsquery) q
        WHERE e.words @@ q AND e.account_id = :account AND c.deleted_at IS NULL
        ORDER BY e.id DESC LIMIT :ranked) AS newest
    ORDER BY message_id IS NOT NULL, score DESC, id DESC LIMIT :most OFFSET :offset""")


def index_message(
    session: Session,
    account_id: str,
    conversation_id: str,
    message_id: str,
    content: str,
    *,
    replace: bool = False,
) -> None:
    """Adds a message to the index; with `replace`, its entry is replaced."""
    if replace:
        session.execute(_DELETE_MESSAGE, {"message": message_id})
    _add(session, account_id, conversation_id, message_id, content)


def index_title(
    session: Session, account_id: str, conversation_id: str, title: str, *, replace: bool = False
) -> None:
    """Adds a title to the index; with `replace`, its entry is replaced."""
    if replace:
        session.execute(_DELETE_TITLE, {"conversation": conversation_id})
    _add(session, account_id, conversation_id, None, title)


def search(session: Session, account_id: str, query: str, *, offset: int, limit: int) -> list[Hit]:
    """Up to `limit` hits after the first `offset`, of the newest 2,000 matches.

    Titles come before messages, and better matches before others.
    """
    terms = terms_of(query)
    if not terms or offset >= RANKED_MAX:
        return []
    parameters = {"account": account_id, "ranked": RANKED_MAX, "most": limit, "offset": offset}
    if session.get_bind().dialect.name == "sqlite":
        parameters["query"] = _fts5_query(account_id, terms)
        parameters["common"] = session.execute(_IS_COMMON_SQLITE, parameters).scalar_one()
        found = session.execute(_FIND_SQLITE, parameters)
    else:
        found = session.execute(_FIND_POSTGRES, parameters | {"query": _tsquery(account_id, terms)})
    return [Hit(*row) for row in found]


_INDEX_DUE = text("index_due")  # in the words of the partial index


def account_with_index_due(session: Session) -> str | None:
    """An account with conversations that came from another one and are not all indexed for it."""
    due = select(C.c.account_id).where(_INDEX_DUE).order_by(C.c.id).limit(1)
    return session.execute(due).scalar_one_or_none()


def index_moved(session: Session, account_id: str) -> None:
    """Indexes a batch of the conversations that came to this account from another one.

    Locks the account, as everything does that indexes its messages: none is indexed twice.
    """
    session.execute(select(A.c.id).where(A.c.id == account_id).with_for_update())
    due = (
        select(C.c.id)
        .where(_INDEX_DUE, owned_by(account_id))
        .order_by(C.c.id)
        .limit(MOVED_CONVERSATIONS_MAX)
    )
    words = 0
    for conversation_id in session.execute(due).scalars().all():
        stale = _stale_entries(session, account_id, conversation_id)
        batch = []
        while stale and words < MOVED_WORDS_MAX:
            batch.append(stale.pop(0))
            words += batch[-1].length
        session.execute(delete(E).where(E.c.id.in_([entry.id for entry in batch])))
        _index_messages(session, account_id, [each.message_id for each in batch if each.message_id])
        if any(each.message_id is None for each in batch):
            _index_titles(session, account_id, [conversation_id])
        if stale or len(batch) == PAGE or words >= MOVED_WORDS_MAX:
            return
        session.execute(update(C).where(C.c.id == conversation_id).values(index_due=False))


def _stale_entries(session: Session, account_id: str, conversation_id: str) -> list[Any]:
    """Some entries of a conversation that are of another account; fewer than PAGE are all."""
    stale = select(E.c.id, E.c.message_id, E.c.length).where(E.c.account_id != account_id)
    of_title = stale.where(E.c.conversation_id == conversation_id, E.c.message_id.is_(None))
    of_messages = stale.join(M, M.c.id == E.c.message_id).where(
        M.c.conversation_id == conversation_id
    )
    return list(session.execute(union_all(of_title, of_messages).limit(PAGE)))


def _index_messages(session: Session, account_id: str, ids: list[str]) -> None:
    contents = (
        select(M.c.conversation_id, M.c.id, M.c.parts, G.c.parts)
        .outerjoin(G, G.c.id == M.c.generation_id)
        .where(M.c.id.in_(ids))
    )
    for conversation_id, message_id, question, answer in session.execute(contents).all():
        index_message(
            session, account_id, conversation_id, message_id, joined_text(question or answer)
        )


def _index_titles(session: Session, account_id: str, ids: list[str]) -> None:
    for conversation_id, title in session.execute(
        select(C.c.id, C.c.title).where(C.c.id.in_(ids))
    ).all():
        index_title(session, account_id, conversation_id, title)


def _add(
    session: Session, account_id: str, conversation_id: str, message_id: str | None, content: str
) -> None:
    words = words_of(content)
    if not words:
        return
    account, entry = (
        _account_word(account_id),
        (account_id, conversation_id, message_id, len(words)),
    )
    if session.get_bind().dialect.name == "sqlite":
        connection = session.connection()
        entry_id = connection.exec_driver_sql(_NEW_ENTRY_SQLITE, entry).lastrowid
        connection.exec_driver_sql(
            _NEW_WORDS_SQLITE, (entry_id, " ".join([account + word for word in words]))
        )
    else:
        vector = " ".join(f"'{word}':{min(at, POSITION_MAX)}" for at, word in enumerate(words, 1))
        values = dict(
            zip(("account_id", "conversation_id", "message_id", "length"), entry, strict=True)
        )
        session.execute(_NEW_ENTRY_POSTGRES, values | {"words": f"'{account}' {vector}"})


def _fts5_query(account_id: str, terms: list[Term]) -> str:
    account = _account_word(account_id)
    return " AND ".join(
        f'"{" ".join(account + word for word in term.words)}"{" *" if term.prefix else ""}'
        for term in terms
    )


def _tsquery(account_id: str, terms: list[Term]) -> str:
    phrases = [
        "(" + " <-> ".join(f"'{word}'" for word in term.words) + (":*" if term.prefix else "") + ")"
        for term in terms
    ]
    return " & ".join([f"'{_account_word(account_id)}'", *phrases])


def _account_word(account_id: str) -> str:
    return account_id.replace("_", "").lower()
