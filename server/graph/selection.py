"""Selections: whether the content of a field's messages is selected, so that it is read at once.

Content that this overlooks is read when its field is resolved, which takes longer.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from graphql import FieldNode, FragmentDefinitionNode, FragmentSpreadNode, InlineFragmentNode

from server.graph.context import Info

CONTENT_FIELDS: Final = frozenset({"text", "content"})
WRAPPERS: Final = frozenset({"nodes", "edges", "node"})


def selects_content(info: Info) -> bool:
    """Whether `text` or `content` is selected of the messages that a field returns."""
    raw = info._raw_info  # noqa: SLF001  the public `selected_fields` copies the whole selection
    return _is_in(raw.field_nodes, raw.fragments, set())


def _is_in(
    fields: Iterable[FieldNode | FragmentDefinitionNode | InlineFragmentNode],
    fragments: Mapping[str, FragmentDefinitionNode],
    seen: set[str],
) -> bool:
    """Whether content is selected directly in these, or in their wrappers and fragments."""
    inner: list[FieldNode | FragmentDefinitionNode | InlineFragmentNode] = []
    for field in fields:
        for node in field.selection_set.selections if field.selection_set else ():
            match node:
                case FieldNode():
                    if node.name.value in CONTENT_FIELDS:
                        return True
                    if node.name.value in WRAPPERS:
                        inner.append(node)
                case InlineFragmentNode():
                    inner.append(node)
                case FragmentSpreadNode() if node.name.value not in seen:
                    seen.add(node.name.value)
                    inner.append(fragments[node.name.value])
    return bool(inner) and _is_in(inner, fragments, seen)
