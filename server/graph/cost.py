"""What a document would cost: how deep it goes, what it repeats, and how many fields its answer may have.

Every field counts once for every object it may be read of: a page of 50 whose nodes have pages of 20 has 50 · 20 of what is asked of those.
A page counts as long as it was asked to be, any other list as long as it usually is, siblings of siblings as long as they may be.
Introspection has a price of its own: its answer has a fixed size.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    Node,
    ObjectValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_list_type,
)

from server.history.tree import SIBLINGS_MAX
from server.settings import GraphqlSettings
from server.verbs.inputs import PAGE_DEFAULT, PAGE_MAX

USUAL_LENGTHS = {"siblings": 10, "apiKeys": 100, "models": 20, "activeGenerations": 2}
USUAL_LENGTH = 3
INTROSPECTION_COST = 2000
SEARCH_COST = 2000
"""A search ranks up to 2,000 matches and scans the texts of its page for excerpts."""
INTROSPECTION_DEPTH_MAX = 30
REPEATS_MAX = 30
"""How often one and the same field of an answer may be asked for: validation compares each time with every other."""


class _TooMuch(Exception):
    """A limit is passed."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(what, limit)
        self.what, self.limit = what, limit


def too_complex(what: str, limit: int) -> GraphQLError:
    """The error for a document that passes a limit."""
    message = f"The document has {what}; at most {limit} is allowed."
    return GraphQLError(message, extensions={"code": "document_too_complex", "limit": limit})


def check_shape(document: DocumentNode, settings: GraphqlSettings) -> GraphQLError | None:
    """What is wrong with a document whatever it is asked of: its depth, its aliases, its directives."""
    try:
        shape = _Shape(settings)
        for definition in document.definitions:
            shape.walk(definition, 0, settings.depth_max)
    except _TooMuch as fault:
        return too_complex(fault.what, fault.limit)
    return None


def check_cost(
    schema: GraphQLSchema, document: DocumentNode, variables: dict[str, Any], cost_max: int
) -> GraphQLError | None:
    """The error when an operation of the document would cost more than `cost_max`, or spread too deep."""
    fragments = {
        each.name.value: each
        for each in document.definitions
        if isinstance(each, FragmentDefinitionNode)
    }
    try:
        for operation in document.definitions:
            if isinstance(operation, OperationDefinitionNode):
                _Bill(schema, fragments, _pages_of(operation, variables), cost_max).operation(
                    operation
                )
    except _TooMuch as fault:
        return too_complex(fault.what, fault.limit)
    return None


class _Shape:
    """Counts what can be counted without knowing the schema. Fragments count where they are written."""

    def __init__(self, settings: GraphqlSettings) -> None:
        self._settings = settings
        self._aliases = self._directives = 0

    def walk(self, node: Node, depth: int, depth_max: int) -> None:
        """Looks at a definition, a selection or a value, and at all within."""
        if depth > depth_max:
            raise _TooMuch(f"fields or values nested more than {depth_max} deep", depth_max)
        if isinstance(node, FieldNode):
            self._aliases += node.alias is not None
            if self._aliases > self._settings.aliases_max:
                raise _TooMuch("too many aliases", self._settings.aliases_max)
            if node.name.value.startswith("__"):
                depth_max = INTROSPECTION_DEPTH_MAX
        elif isinstance(node, FragmentDefinitionNode) and node.type_condition.name.value.startswith(
            "__"
        ):
            depth_max = INTROSPECTION_DEPTH_MAX
        self._directives += len(getattr(node, "directives", None) or ())
        if self._directives > self._settings.directives_max:
            raise _TooMuch("too many directives", self._settings.directives_max)
        for inner in _within(node):
            self.walk(
                inner,
                depth + isinstance(inner, FieldNode | ListValueNode | ObjectValueNode),
                depth_max,
            )


def _within(node: Node) -> Iterator[Node]:
    """The selections, variables and values that a node holds."""
    if isinstance(node, ListValueNode):
        yield from node.values
    elif isinstance(node, ObjectValueNode):
        yield from (field.value for field in node.fields)
    for holder in (
        *(getattr(node, "arguments", None) or ()),
        *(getattr(node, "directives", None) or ()),
    ):
        yield from (argument.value for argument in getattr(holder, "arguments", None) or ())
        if (value := getattr(holder, "value", None)) is not None:
            yield value
    for variable in getattr(node, "variable_definitions", None) or ():
        yield variable
        if variable.default_value is not None:
            yield variable.default_value
    if (selections := getattr(node, "selection_set", None)) is not None:
        yield from selections.selections


class _At(NamedTuple):
    """Where in the answer a selection stands: how often it is there, and how long the page is that it is selected of, if it is one.

    `path` are the names that lead there, `fragments` those it is in; `beside` says that it is below siblings.
    """

    type: GraphQLNamedType | None
    times: int
    page: int | None
    path: tuple[str, ...] = ()
    fragments: frozenset[str] = frozenset()
    beside: bool = False


class _Bill:
    """Adds up one operation. Every step costs something, so that what is repeated without end comes to an end."""

    def __init__(
        self,
        schema: GraphQLSchema,
        fragments: dict[str, FragmentDefinitionNode],
        pages: dict[str, int],
        cost_max: int,
    ) -> None:
        self._schema, self._fragments, self._pages, self._cost_max = (
            schema,
            fragments,
            pages,
            cost_max,
        )
        self._cost = 0
        self._asked: Counter[tuple[str, ...]] = Counter()

    def operation(self, operation: OperationDefinitionNode) -> None:
        """Adds everything that an operation selects."""
        self._selections(
            operation.selection_set, _At(self._schema.get_root_type(operation.operation), 1, None)
        )

    def _add(self, cost: int) -> None:
        self._cost += cost
        if self._cost > self._cost_max:
            raise _TooMuch(
                "an answer with too many fields (pages multiply what is in them)", self._cost_max
            )

    def _selections(self, selections: SelectionSetNode, at: _At) -> None:
        for node in selections.selections:
            self._add(at.times)
            match node:
                case FieldNode():
                    self._field(node, at)
                case InlineFragmentNode():
                    condition = node.type_condition
                    self._selections(
                        node.selection_set,
                        at._replace(
                            type=self._type(condition.name.value) if condition else at.type
                        ),
                    )
                case FragmentSpreadNode():
                    fragment = self._fragments.get(node.name.value)
                    if fragment is not None and node.name.value not in at.fragments:
                        type = self._type(fragment.type_condition.name.value)
                        self._selections(
                            fragment.selection_set,
                            at._replace(type=type, fragments=at.fragments | {node.name.value}),
                        )

    def _field(self, node: FieldNode, at: _At) -> None:
        name = node.name.value
        path = (*at.path, node.alias.value if node.alias else name)
        self._asked[path] += 1
        if self._asked[path] > REPEATS_MAX:
            raise _TooMuch("the same field too often", REPEATS_MAX)
        if name in ("__schema", "__type"):
            self._add(INTROSPECTION_COST)
            return
        if name == "search":
            self._add(SEARCH_COST)
        if node.selection_set is not None and not name.startswith("__"):
            field = (
                at.type.fields.get(name)
                if isinstance(at.type, GraphQLObjectType | GraphQLInterfaceType)
                else None
            )
            times = at.times * self._length(name, field, at)
            type = get_named_type(field.type) if field is not None else None
            beside = at.beside or name == "siblings"
            self._selections(
                node.selection_set,
                _At(type, times, self._page(node, field), path, at.fragments, beside),
            )

    def _length(self, name: str, field: GraphQLField | None, at: _At) -> int:
        """How many objects a field answers with."""
        if field is None or not is_list_type(get_nullable_type(field.type)):
            return 1
        return at.page or (
            SIBLINGS_MAX
            if name == "siblings" and at.beside
            else USUAL_LENGTHS.get(name, USUAL_LENGTH)
        )

    def _page(self, node: FieldNode, field: GraphQLField | None) -> int | None:
        """How long the page is that a field answers with; None for one that answers with none."""
        if field is None or "first" not in field.args:
            return None
        asked = [
            argument.value
            for argument in node.arguments or ()
            if argument.name.value in ("first", "last")
        ]
        return max((self._size(value) for value in asked), default=PAGE_DEFAULT)

    def _size(self, value: Any) -> int:
        if isinstance(value, VariableNode):
            return self._pages.get(value.name.value, PAGE_DEFAULT)
        return _clamped(value.value) if isinstance(value, IntValueNode) else PAGE_DEFAULT

    def _type(self, name: str) -> GraphQLNamedType | None:
        return self._schema.get_type(name)


def _pages_of(operation: OperationDefinitionNode, variables: dict[str, Any]) -> dict[str, int]:
    """The variables of an operation that can be the length of a page."""
    pages = {}
    for each in operation.variable_definitions or ():
        name = each.variable.name.value
        if isinstance(each.default_value, IntValueNode):
            pages[name] = _clamped(each.default_value.value)
        value = variables.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            pages[name] = _clamped(value)
    return pages


def _clamped(value: str | float) -> int:
    """A page's length between 1 and the most there is; longer ones are refused later."""
    try:
        return min(max(int(value), 1), PAGE_MAX)
    except (ValueError, OverflowError):
        return PAGE_MAX
