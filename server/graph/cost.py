"""The limits of a document: its depth, its repetitions, and how many fields its response may have.

The cost counts every field once for every object that may have it: in a page of 50 whose nodes have
pages of 20, a field of the inner nodes counts 50 · 20. A page counts its requested length, any
other list its usual length, siblings of siblings their maximum. Introspection has a fixed cost,
because its response has a fixed size.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

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
    OperationType,
    SelectionSetNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_list_type,
)

from server.graph.errors import too_complex
from server.history.tree import SIBLINGS_MAX
from server.verbs.inputs import PAGE_DEFAULT, PAGE_MAX

DEPTH_MAX: Final = 12
ALIASES_MAX: Final = 30
ALIAS_MAX_CHARS: Final = 128
"""The response repeats an alias as often as its field, and the cost ignores its length."""

DIRECTIVES_MAX: Final = 50
REPEATS_MAX: Final = 30
"""How often one response field may be selected: validation compares all selections of it."""

INTROSPECTION_DEPTH_MAX: Final = 30
INTROSPECTION_COST: Final = 2000
SEARCH_COST: Final = 2000
"""A search ranks up to 2,000 matches and scans the texts of its page for excerpts."""

SUBSCRIPTION_COST_MAX: Final = 500
"""A query has its cost once, a subscription with every event."""

USUAL_LENGTHS: Final = {"siblings": 10, "apiKeys": 100, "models": 20, "activeGenerations": 2}
USUAL_LENGTH: Final = 3


class _LimitExceeded(Exception):
    def __init__(self, message: str, limit: int) -> None:
        super().__init__(message, limit)
        self.message, self.limit = message, limit


def check_shape(document: DocumentNode) -> GraphQLError | None:
    """The error for a document with too much depth, or too many aliases or directives."""
    try:
        shape = _Shape()
        for definition in document.definitions:
            shape.walk(definition, 0, DEPTH_MAX)
    except _LimitExceeded as exceeded:
        return too_complex(exceeded.message, exceeded.limit)
    return None


def check_cost(
    schema: GraphQLSchema, document: DocumentNode, variables: dict[str, Any], cost_max: int
) -> GraphQLError | None:
    """The error for a document with an operation that costs more than `cost_max`.

    A subscription may cost at most `SUBSCRIPTION_COST_MAX`.
    """
    fragments = {
        each.name.value: each
        for each in document.definitions
        if isinstance(each, FragmentDefinitionNode)
    }
    try:
        for operation in document.definitions:
            if isinstance(operation, OperationDefinitionNode):
                subscribes = operation.operation is OperationType.SUBSCRIPTION
                limit = min(cost_max, SUBSCRIPTION_COST_MAX) if subscribes else cost_max
                pages = _page_variables(operation, variables)
                _Cost(schema, fragments, pages, limit).add_operation(operation)
    except _LimitExceeded as exceeded:
        return too_complex(exceeded.message, exceeded.limit)
    return None


class _Shape:
    """Counts what is known without the schema. A fragment counts once, where it is defined.

    The depth of fields in fragments of fragments is counted with their cost.
    """

    def __init__(self) -> None:
        self._aliases = self._directives = 0

    def walk(self, node: Node, depth: int, depth_max: int) -> None:
        """Counts a definition, selection or value, and everything in it."""
        _check_depth(depth, depth_max)
        if isinstance(node, FieldNode):
            self._count_alias(node)
            if node.name.value.startswith("__"):
                depth_max = INTROSPECTION_DEPTH_MAX
        elif isinstance(node, FragmentDefinitionNode) and node.type_condition.name.value.startswith(
            "__"
        ):
            depth_max = INTROSPECTION_DEPTH_MAX
        self._directives += len(getattr(node, "directives", None) or ())
        if self._directives > DIRECTIVES_MAX:
            raise _LimitExceeded(
                f"The document exceeds the limit of {DIRECTIVES_MAX} directives.", DIRECTIVES_MAX
            )
        for inner in _within(node):
            nested = isinstance(inner, FieldNode | ListValueNode | ObjectValueNode)
            self.walk(inner, depth + nested, depth_max)

    def _count_alias(self, node: FieldNode) -> None:
        if node.alias is None:
            return
        self._aliases += 1
        if self._aliases > ALIASES_MAX:
            raise _LimitExceeded(
                f"The document exceeds the limit of {ALIASES_MAX} aliases.", ALIASES_MAX
            )
        if len(node.alias.value) > ALIAS_MAX_CHARS:
            raise _LimitExceeded(
                f"An alias exceeds the limit of {ALIAS_MAX_CHARS} characters.", ALIAS_MAX_CHARS
            )


def _check_depth(depth: int, depth_max: int) -> None:
    if depth > depth_max:
        raise _LimitExceeded(
            f"The document exceeds the limit of {depth_max} levels of nested fields or values.",
            depth_max,
        )


def _within(node: Node) -> Iterator[Node]:
    """The selections, variables and values directly in a node."""
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


class _Parent(NamedTuple):
    """What a selection set applies to: objects of a type, `times` of them in the response.

    `page` is the length of the page if the type is a connection, `path` the response names that
    lead to it, `fragments` those that contain it.
    """

    type: GraphQLNamedType | None
    times: int
    page: int | None
    path: tuple[str, ...] = ()
    fragments: frozenset[str] = frozenset()
    below_siblings: bool = False


class _Cost:
    """Adds up the cost of an operation. Every step adds to it, so no recursion is endless."""

    def __init__(
        self,
        schema: GraphQLSchema,
        fragments: dict[str, FragmentDefinitionNode],
        pages: dict[str, int],
        cost_max: int,
    ) -> None:
        self._schema, self._fragments, self._pages = schema, fragments, pages
        self._cost, self._cost_max = 0, cost_max
        self._repeats: Counter[tuple[str, ...]] = Counter()

    def add_operation(self, operation: OperationDefinitionNode) -> None:
        root = self._schema.get_root_type(operation.operation)
        self._selections(operation.selection_set, _Parent(root, 1, None))

    def _add(self, cost: int) -> None:
        self._cost += cost
        if self._cost > self._cost_max:
            raise _LimitExceeded(
                f"The response exceeds the limit of {self._cost_max} fields; "
                "pages and lists multiply the fields in them.",
                self._cost_max,
            )

    def _selections(self, selections: SelectionSetNode, parent: _Parent) -> None:
        for node in selections.selections:
            self._add(parent.times)
            match node:
                case FieldNode():
                    self._field(node, parent)
                case InlineFragmentNode():
                    condition = node.type_condition
                    self._selections(
                        node.selection_set,
                        parent._replace(
                            type=self._type(condition.name.value) if condition else parent.type
                        ),
                    )
                case FragmentSpreadNode():
                    fragment = self._fragments.get(node.name.value)
                    if fragment is not None and node.name.value not in parent.fragments:
                        type = self._type(fragment.type_condition.name.value)
                        self._selections(
                            fragment.selection_set,
                            parent._replace(
                                type=type, fragments=parent.fragments | {node.name.value}
                            ),
                        )

    def _field(self, node: FieldNode, parent: _Parent) -> None:
        name = node.name.value
        path = (*parent.path, node.alias.value if node.alias else name)
        _check_depth(len(path), DEPTH_MAX)
        self._repeats[path] += 1
        if self._repeats[path] > REPEATS_MAX:
            raise _LimitExceeded(
                f"The document selects the same field more than {REPEATS_MAX} times.", REPEATS_MAX
            )
        if name in ("__schema", "__type"):
            self._add(INTROSPECTION_COST)
            return
        if name == "search":
            self._add(SEARCH_COST)
        if node.selection_set is not None and not name.startswith("__"):
            field = (
                parent.type.fields.get(name)
                if isinstance(parent.type, GraphQLObjectType | GraphQLInterfaceType)
                else None
            )
            times = parent.times * self._length(name, field, parent)
            type = get_named_type(field.type) if field is not None else None
            below_siblings = parent.below_siblings or name == "siblings"
            self._selections(
                node.selection_set,
                _Parent(
                    type, times, self._page(node, field), path, parent.fragments, below_siblings
                ),
            )

    def _length(self, name: str, field: GraphQLField | None, parent: _Parent) -> int:
        """How many objects a field returns."""
        if field is None or not is_list_type(get_nullable_type(field.type)):
            return 1
        return parent.page or (
            SIBLINGS_MAX
            if name == "siblings" and parent.below_siblings
            else USUAL_LENGTHS.get(name, USUAL_LENGTH)
        )

    def _page(self, node: FieldNode, field: GraphQLField | None) -> int | None:
        """The length of the page a field returns; None if it returns no page."""
        if field is None or "first" not in field.args:
            return None
        sizes = [
            argument.value
            for argument in node.arguments or ()
            if argument.name.value in ("first", "last")
        ]
        return max((self._size(value) for value in sizes), default=PAGE_DEFAULT)

    def _size(self, value: Any) -> int:
        if isinstance(value, VariableNode):
            return self._pages.get(value.name.value, PAGE_DEFAULT)
        return _clamped(value.value) if isinstance(value, IntValueNode) else PAGE_DEFAULT

    def _type(self, name: str) -> GraphQLNamedType | None:
        return self._schema.get_type(name)


def _page_variables(
    operation: OperationDefinitionNode, variables: dict[str, Any]
) -> dict[str, int]:
    """The variables of an operation that may be the length of a page."""
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
    """A page length between 1 and the maximum; resolvers reject any other."""
    try:
        return min(max(int(value), 1), PAGE_MAX)
    except (ValueError, OverflowError):
        return PAGE_MAX
