"""Pages of branches: a branch is read from its leaf upwards, and those of many conversations in one statement."""

from collections import defaultdict
from typing import Any, NamedTuple

from sqlalchemy import func, literal, select
from sqlmodel import Session

from server.errors import InvalidCursor
from server.history.keyset import Page, Slice
from server.history.messages import BRANCH_MAX_MESSAGES, Said
from server.history.tables import GENERATIONS as G
from server.history.tables import MESSAGES as M
from server.history.tables import Generation, Message


class BranchPart(NamedTuple):
    """A part of the branch that ends with `leaf`, or just before it (`part.before`), which then is a message's id; so is `part.after`."""

    leaf: str
    part: Slice


def branch_pages(
    session: Session, wanted: list[BranchPart]
) -> dict[BranchPart, Page[Said] | InvalidCursor]:
    """The pages, oldest message first. One whose `after` is not on its branch is an InvalidCursor instead."""
    leaves: dict[Slice, list[str]] = defaultdict(list)
    for leaf, part in wanted:
        leaves[part].append(leaf)
    return {
        BranchPart(leaf, part): page
        for part, together in leaves.items()
        for leaf, page in _pages(session, together, part).items()
    }


def _pages(
    session: Session, leaves: list[str], part: Slice
) -> dict[str, Page[Said] | InvalidCursor]:
    lowest = 0 if part.before is None else 1
    up = _ancestors(
        leaves, part.limit + lowest if part.backwards else BRANCH_MAX_MESSAGES, part.after
    )
    top = func.max(up.c.height).over(partition_by=up.c.leaf).label("top")
    walked = select(up.c.leaf, up.c.id, up.c.height, top).subquery()
    most = part.limit + (0 if part.after is None else 1)
    query = (
        select(walked.c.leaf, Message, Generation)
        .join_from(walked, Message, M.c.id == walked.c.id)
        .outerjoin(Generation, G.c.id == M.c.generation_id)
        .where(walked.c.height >= lowest)
        .order_by(walked.c.height.desc())
    )
    if not part.backwards:
        query = query.where(walked.c.top - walked.c.height <= most)
    found: dict[str, list[Said]] = {leaf: [] for leaf in leaves}
    for leaf, message, generation in session.execute(query):
        found[leaf].append(Said(message, generation))
    return {leaf: _page(said, part) for leaf, said in found.items()}


def _page(said: list[Said], part: Slice) -> Page[Said] | InvalidCursor:
    """The page of what was read: the message at `after`, where that is near enough, then the page, then one more."""
    begins = bool(said) and said[0].message.id == part.after
    if begins:
        said = said[1:]
    more = len(said) > part.limit
    if (
        part.after is not None
        and not begins
        and not (part.backwards and more)
        and part.before != part.after
    ):
        return InvalidCursor("after: there is no such message on this branch.")
    if part.backwards:
        return Page(said[-part.limit :], more or begins, part.before is not None)
    return Page(said[: part.limit], begins, more or part.before is not None)


def _ancestors(leaves: list[str], height_max: int, stop_at: str | None) -> Any:
    """The messages above each leaf, itself included, up to that height, or to `stop_at`."""
    start: Any = select(
        M.c.id, M.c.parent_id, M.c.id.label("leaf"), literal(0).label("height")
    ).where(M.c.id.in_(sorted(set(leaves))))
    up = start.cte("ancestors", recursive=True)
    parents = select(M.c.id, M.c.parent_id, up.c.leaf, up.c.height + 1).join(
        up, M.c.id == up.c.parent_id
    )
    parents = parents.where(up.c.height < height_max)
    return up.union_all(parents.where(up.c.id != stop_at) if stop_at is not None else parents)
