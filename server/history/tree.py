"""The tree of messages: branches, read from their leaf upwards, and siblings.

The cost of reading a branch depends on what is read, not on its length. Pages are shorter when
their content is large.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    ColumnElement,
    Select,
    and_,
    bindparam,
    case,
    func,
    literal,
    null,
    or_,
    select,
    union_all,
)
from sqlalchemy.orm.attributes import set_committed_value
from sqlmodel import Session

from server.errors import Invalid, InvalidCursor
from server.history.keyset import Page, Slice
from server.history.messages import (
    PAGE_MAX_CHARS,
    MessageRow,
    chars,
    owned_by,
)
from server.history.tables import BARE_GENERATION, BARE_MESSAGE, Generation, Message, Role, Status
from server.history.tables import CONVERSATIONS as C
from server.history.tables import GENERATIONS as G
from server.history.tables import MESSAGES as M
from server.parts import Parts, content_chars

SIBLINGS_MAX = 100
PROMPT_PAGE_CHARS = 1 << 20
PROMPT_MAX_CHARS = 32 << 20
"""More than any model's context, with reasoning and failed answers, which no model is sent."""

COUNTED_MAX_MESSAGES = 10_000


def ancestors(
    start: ColumnElement[bool], height_max: int | None, *, stop_at: str | None = None
) -> CTE:
    """The messages that match `start` (height 0) and those above them, each with its `leaf`.

    Ends at `height_max` steps above the leaf, at the message `stop_at`, or at the root.
    """
    leaves = select(M.c.id, M.c.parent_id, M.c.id.label("leaf"), literal(0).label("height"))
    up = leaves.where(start).cte("ancestors", recursive=True)
    parents = select(M.c.id, M.c.parent_id, up.c.leaf, up.c.height + 1).join(
        up, M.c.id == up.c.parent_id
    )
    if height_max is not None:
        parents = parents.where(up.c.height < height_max)
    return up.union_all(parents.where(up.c.id != stop_at) if stop_at is not None else parents)


def branch(
    session: Session, leaf_id: str | None, *, limit: int, include_leaf: bool = True
) -> Page[MessageRow]:
    """The last `limit` messages of the branch that ends with a leaf, or just before it.

    Oldest first. The page is shorter when its content exceeds PAGE_MAX_CHARS.
    """
    if leaf_id is None:
        return Page([], has_previous=False, has_next=False)
    part = Slice(limit, backwards=True, before=None if include_leaf else leaf_id)
    page = branch_pages(session, [BranchPart(leaf_id, part)])[BranchPart(leaf_id, part)]
    assert isinstance(page, Page), "without `after` there is no cursor to refuse"
    return page


class BranchPart(NamedTuple):
    """A slice of the branch that ends with `leaf`, whose cursors are message ids.

    With `part.before`, `leaf` is that message and is itself excluded.
    """

    leaf: str
    part: Slice


def branch_pages(
    session: Session, wanted: Sequence[BranchPart], *, chars_max: int | None = None
) -> dict[BranchPart, Page[MessageRow] | InvalidCursor]:
    """Pages of many branches, oldest message first; one statement for each distinct slice.

    A page whose `after` is not on its branch is an InvalidCursor instead. With `chars_max`, rows
    come without their content beyond so many characters; see `MessageRow.has_content`.
    """
    leaves: dict[Slice, list[str]] = defaultdict(list)
    for leaf, part in wanted:
        leaves[part].append(leaf)
    pages: dict[BranchPart, Page[MessageRow] | InvalidCursor] = {}
    for part, of_part in leaves.items():
        found = _branch_pages(session, of_part, part, chars_max)
        pages |= {BranchPart(leaf, part): page for leaf, page in found.items()}
        if chars_max and len(leaves) > 1:
            chars_max = max(0, chars_max - _content_chars(found.values()))
    return pages


def _content_chars(pages: Iterable[Page[MessageRow] | InvalidCursor]) -> int:
    """How much content the rows of some pages have."""
    rows = [row for page in pages if isinstance(page, Page) for row in page.items]
    return sum(content_chars(row.parts) for row in rows if row.has_content)


def _branch_pages(
    session: Session, leaves: list[str], part: Slice, chars_max: int | None
) -> dict[str, Page[MessageRow] | InvalidCursor]:
    lowest = 0 if part.before is None else 1
    # Forwards, a page begins at the root or at `after`: only a walk up from the leaf finds the way.
    height_max = part.limit + lowest if part.backwards else None
    up = ancestors(M.c.id.in_(sorted(set(leaves))), height_max, stop_at=part.after)
    top = func.max(up.c.height).over(partition_by=up.c.leaf).label("top")
    walked = select(up.c.leaf, up.c.id, up.c.height, top).subquery()
    in_order = walked.c.height if part.backwards else walked.c.height.desc()
    size = chars(M.c.parts) + chars(G.c.parts) + chars(M.c.metadata)
    sized = (
        select(
            walked.c.leaf,
            walked.c.id,
            walked.c.height,
            func.row_number().over(partition_by=walked.c.leaf, order_by=in_order).label("number"),
            func.count().over(partition_by=walked.c.leaf).label("count"),
            (func.sum(size).over(order_by=(walked.c.leaf, in_order)) - size).label("chars_before"),
        )
        .join(M, M.c.id == walked.c.id)
        .outerjoin(G, G.c.id == M.c.generation_id)
        .where(walked.c.height >= lowest)
    )
    if not part.backwards:
        most = part.limit + (0 if part.after is None else 1)
        sized = sized.where(walked.c.top - walked.c.height <= most)
    page = sized.subquery()
    first = 1 if part.after is None else 2  # the message at `after` itself comes before the page
    fits = page.c.chars_before < bindparam("chars_max", chars_max)
    content = case((fits, func.coalesce(M.c.parts, G.c.parts))) if chars_max else null()
    query = (
        select(page.c.leaf, page.c.count, Message, Generation, content)
        .join_from(page, Message, M.c.id == page.c.id)
        .outerjoin(Generation, G.c.id == M.c.generation_id)
        .where(or_(page.c.number <= first, page.c.chars_before < PAGE_MAX_CHARS))
        .order_by(page.c.height.desc())
    )
    if chars_max is not None:
        query = query.options(*BARE_MESSAGE, *BARE_GENERATION)
    rows: dict[str, list[MessageRow]] = {leaf: [] for leaf in leaves}
    counts: dict[str, int] = dict.fromkeys(leaves, 0)
    for leaf, count, message, generation, parts in session.execute(query):
        if parts is not None:
            set_committed_value(generation or message, "parts", parts)
        rows[leaf].append(MessageRow(message, generation))
        counts[leaf] = count
    return {leaf: _page(rows[leaf], part, cut=counts[leaf] > len(rows[leaf])) for leaf in leaves}


def _page(rows: list[MessageRow], part: Slice, *, cut: bool) -> Page[MessageRow] | InvalidCursor:
    """The page in `rows`: perhaps the message at `after`, then the page, then perhaps one more.

    `cut` means that the size limit left something out.
    """
    begins = bool(rows) and rows[0].message.id == part.after
    if begins:
        rows = rows[1:]
    more = cut or len(rows) > part.limit
    reaches = begins or (part.backwards and more)
    if part.after is not None and not reaches and part.before != part.after:
        return InvalidCursor("after: there is no such message on this branch.")
    if part.backwards:
        return Page(rows[-part.limit :], more or begins, part.before is not None)
    return Page(rows[: part.limit], begins, more or part.before is not None)


def message_above(session: Session, leaf_id: str, height: int) -> str | None:
    """The ancestor of a message by `height` levels; None beyond the root."""
    up = ancestors(M.c.id == leaf_id, height)
    above: str | None = session.execute(select(up.c.id).where(up.c.height == height)).scalar()
    return above


class PromptMessage(NamedTuple):
    """The part of a message that a prompt needs."""

    parent_id: str | None
    role: Role
    status: Status
    parts: Parts
    continues: bool
    """Whether its generation continued an answer."""


def _prompt_page() -> Select[Any]:
    """The messages of a branch from `leaf` upwards, up to the one that fills a page."""
    size = chars(M.c.parts) + chars(G.c.parts)
    columns = M.c.id, M.c.parent_id, M.c.generation_id
    leaf = select(*columns, literal(0).label("height"), size.label("chars"))
    leaf = leaf.outerjoin(G, G.c.id == M.c.generation_id).where(M.c.id == bindparam("leaf"))
    up = leaf.cte("ancestors", recursive=True)
    parents = (
        select(*columns, up.c.height + 1, up.c.chars + size)
        .join_from(up, M, M.c.id == up.c.parent_id)
        .outerjoin(G, G.c.id == M.c.generation_id)
        .where(up.c.height < bindparam("height_max"), up.c.chars < PROMPT_PAGE_CHARS)
    )
    up = up.union_all(parents)
    return (
        select(
            up.c.parent_id,
            up.c.chars,
            M.c.role,
            G.c.status,
            M.c.parts,
            G.c.parts,
            G.c.previous_id.isnot(None),
        )
        .join_from(up, M, M.c.id == up.c.id)
        .outerjoin(G, G.c.id == up.c.generation_id)
        .order_by(up.c.height)
    )


_PROMPT_PAGE = _prompt_page()


def prompt_branch(session: Session, leaf_id: str, *, limit: int) -> Iterator[PromptMessage]:
    """The last `limit` messages of the branch that ends with the leaf, the newest first.

    They are read in pages of 1 MiB as the caller goes on, and none beyond PROMPT_MAX_CHARS.
    """
    next_id: str | None = leaf_id
    read_chars = 0
    while next_id is not None and limit > 0 and read_chars < PROMPT_MAX_CHARS:
        rows = session.execute(_PROMPT_PAGE, {"leaf": next_id, "height_max": limit - 1}).all()
        next_id = None
        for parent_id, _chars, role, status, question, answer, continues in rows:
            next_id = parent_id
            parts = question or answer or []
            yield PromptMessage(parent_id, role, status or Status.COMPLETED, parts, continues)
        limit -= len(rows)
        read_chars += rows[-1].chars if rows else 0


_COUNTED = ancestors(M.c.id == bindparam("leaf"), COUNTED_MAX_MESSAGES - 1)
_COUNT_SENDABLE = (
    select(func.count())
    .select_from(
        _COUNTED.join(M, M.c.id == _COUNTED.c.id).outerjoin(G, G.c.id == M.c.generation_id)
    )
    .where(
        or_(
            M.c.role == Role.USER,
            G.c.status.in_((Status.COMPLETED, Status.CANCELLED)),
            (G.c.status == Status.FAILED) & G.c.previous_id.isnot(None),
        )
    )
)


def count_sendable(session: Session, leaf_id: str) -> int:
    """How many messages of the branch that ends with the leaf a model could be sent.

    Of a longer branch, only the last COUNTED_MAX_MESSAGES are counted.
    """
    counted: int = session.execute(_COUNT_SENDABLE, {"leaf": leaf_id}).scalar_one()
    return counted


def newest_leaf(session: Session, conversation_id: str, message_id: str) -> str:
    """The leaf reached by following the newest child of each message.

    Raises Invalid when the message is not in the conversation.
    """
    matches = M.c.id == message_id, M.c.conversation_id == conversation_id
    if session.execute(select(M.c.id).where(*matches)).one_or_none() is None:
        reason = "there is no such message in this conversation"
        raise Invalid.at("/shown_message_id", reason, code="invalid_message")
    sibling, child = M.alias(), M.alias()
    down = select(M.c.id, literal(0).label("depth")).where(M.c.id == message_id)
    branch = down.cte("branch", recursive=True)
    newest = select(func.max(sibling.c.position)).where(
        sibling.c.conversation_id == conversation_id, sibling.c.parent_id == child.c.parent_id
    )
    branch = branch.union_all(
        select(child.c.id, branch.c.depth + 1)
        .join(branch, child.c.parent_id == branch.c.id)
        .where(
            child.c.conversation_id == conversation_id,
            child.c.position == newest.scalar_subquery(),
        )
    )
    leaf: str = session.execute(
        select(branch.c.id).order_by(branch.c.depth.desc()).limit(1)
    ).scalar_one()
    return leaf


class SiblingKey(NamedTuple):
    """Identifies a group of siblings: the children of a message, or a conversation's roots."""

    conversation_id: str
    parent_id: str | None


class SiblingWindow(NamedTuple):
    """The ids of at most SIBLINGS_MAX siblings around a message, in order, and how many exist."""

    ids: list[str]
    total: int


def sibling_windows(
    session: Session, messages: Sequence[Message], *, only_small: bool = False
) -> dict[str, SiblingWindow]:
    """The siblings of each message, itself included. The messages are of one conversation.

    Siblings are numbered without gaps, so a window is a range of positions. With `only_small`,
    groups of more than SIBLINGS_MAX get an empty window, so that a list costs what its rows cost.
    """
    if not messages:
        return {}
    conversation_id = messages[0].conversation_id
    counts = _sibling_counts(session, conversation_id, {each.parent_id for each in messages})
    starts = {each.id: _window_start(each.position, counts[each.parent_id]) for each in messages}
    large = {
        (each.parent_id, starts[each.id])
        for each in messages
        if counts[each.parent_id] > SIBLINGS_MAX and not only_small
    }
    wanted = [_has_parent_in([parent for parent, n in counts.items() if n <= SIBLINGS_MAX])] + [
        and_(_has_parent_in([parent]), M.c.position.between(start, start + SIBLINGS_MAX - 1))
        for parent, start in large
    ]
    found: dict[str | None, dict[int, str]] = defaultdict(dict)
    query = select(M.c.parent_id, M.c.position, M.c.id).where(
        M.c.conversation_id == conversation_id, or_(*wanted)
    )
    for parent_id, position, id in session.execute(query):
        found[parent_id][position] = id
    windows = {}
    for message in messages:
        ids, start = found[message.parent_id], starts[message.id]
        window = [ids[at] for at in range(start, start + SIBLINGS_MAX) if at in ids]
        windows[message.id] = SiblingWindow(window, counts[message.parent_id])
    return windows


def _window_start(position: int, count: int) -> int:
    return max(0, min(position - SIBLINGS_MAX // 2, count - SIBLINGS_MAX))


def sibling_ids(
    session: Session, account_id: str, message_ids: Sequence[str]
) -> dict[str, list[str]]:
    """The ids in the sibling window of each message, for messages of any conversations."""
    wanted = (
        select(M.c.id, M.c.conversation_id, M.c.parent_id, M.c.position)
        .join(C, C.c.id == M.c.conversation_id)
        .where(M.c.id.in_(message_ids), owned_by(account_id))
        .cte("wanted")
    )
    # Whatever the size of its group, the window of a message is within these positions.
    groups = (
        select(
            wanted.c.conversation_id,
            wanted.c.parent_id,
            (func.min(wanted.c.position) - SIBLINGS_MAX).label("first"),
            (func.max(wanted.c.position) + SIBLINGS_MAX).label("last"),
        )
        .group_by(wanted.c.conversation_id, wanted.c.parent_id)
        .cte("groups")
    )
    near = select(M.c.conversation_id, M.c.parent_id, M.c.position, M.c.id).join(
        groups,
        (M.c.conversation_id == groups.c.conversation_id)
        & M.c.position.between(groups.c.first, groups.c.last),
    )
    found: dict[SiblingKey, dict[int, str]] = defaultdict(dict)
    query = union_all(
        near.where(M.c.parent_id == groups.c.parent_id),
        near.where(M.c.parent_id.is_(None), groups.c.parent_id.is_(None)),
    )
    at: dict[str, tuple[SiblingKey, int]] = {}
    for conversation_id, parent_id, position, id in session.execute(query):
        key = SiblingKey(conversation_id, parent_id)
        found[key][position] = id
        at[id] = key, position
    windows = {}
    for id in message_ids:
        if id in at:
            key, position = at[id]
            ids = found[key]
            start = _window_start(position, max(ids) + 1)
            windows[id] = [ids[n] for n in range(start, start + SIBLINGS_MAX) if n in ids]
    return windows


def sibling_totals(
    session: Session, account_id: str, wanted: Sequence[SiblingKey]
) -> dict[SiblingKey, int]:
    """How many messages each group has."""
    parents: dict[str, set[str | None]] = defaultdict(set)
    for conversation_id, parent_id in wanted:
        parents[conversation_id].add(parent_id)
    query = select(C.c.id).where(C.c.id.in_(sorted(parents)), owned_by(account_id))
    totals: dict[SiblingKey, int] = {}
    for conversation_id in session.scalars(query):
        counts = _sibling_counts(session, conversation_id, parents[conversation_id])
        totals |= {SiblingKey(conversation_id, parent): n for parent, n in counts.items()}
    return totals


def _sibling_counts(
    session: Session, conversation_id: str, parent_ids: set[str | None]
) -> dict[str | None, int]:
    """How many messages each parent has; reads one index entry for each."""
    child = M.alias()
    of_conversation = child.c.conversation_id == conversation_id
    last = select(func.max(child.c.position)).where(of_conversation, child.c.parent_id == M.c.id)
    ids = [parent_id for parent_id in parent_ids if parent_id is not None]
    query = select(M.c.id, last.correlate(M).scalar_subquery()).where(M.c.id.in_(ids))
    counts: dict[str | None, int] = {}
    if ids:
        counts |= {id: position + 1 for id, position in session.execute(query)}
    if None in parent_ids:
        roots = select(func.max(child.c.position)).where(
            of_conversation, child.c.parent_id.is_(None)
        )
        counts[None] = session.execute(roots).scalar_one() + 1
    return counts


def _has_parent_in(parent_ids: Sequence[str | None]) -> ColumnElement[bool]:
    below = M.c.parent_id.in_([id for id in parent_ids if id is not None])
    return or_(below, M.c.parent_id.is_(None)) if None in parent_ids else below
