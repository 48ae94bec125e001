"""Guards: what a document may ask for, checked before anything of it is validated or done; and errors as callers may see them."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    specified_rules,
    validate,
)
from strawberry.extensions import SchemaExtension
from strawberry.types.graphql import OperationType

from server.graph.context import Context
from server.graph.cost import check_cost, check_shape, too_complex
from server.graph.errors import ERRORS_MAX, shown
from server.graph.search_budget import SearchBudget, SearchSlots
from server.settings import GraphqlSettings

KEPT_DOCUMENTS_MAX = 128
KEPT_DOCUMENT_MAX_CHARS = 4096


class Documents:
    """Documents that were parsed and found valid before: clients send the same few again and again."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, DocumentNode] = OrderedDict()

    def get(self, query: str) -> DocumentNode | None:
        """The document of this text, if it was kept."""
        if query in self._kept:
            self._kept.move_to_end(query)
        return self._kept.get(query)

    def keep(self, query: str, document: DocumentNode) -> None:
        """Keeps a valid document, unless it is long."""
        if len(query) <= KEPT_DOCUMENT_MAX_CHARS:
            self._kept[query] = document
            if len(self._kept) > KEPT_DOCUMENTS_MAX:
                self._kept.popitem(last=False)


class Guard(SchemaExtension):
    """Surrounds one operation."""

    def __init__(
        self,
        schema: GraphQLSchema,
        settings: GraphqlSettings,
        documents: Documents,
        slots: SearchSlots,
    ) -> None:
        self._schema, self._settings, self._documents = schema, settings, documents
        self._slots = slots
        self._valid = self._named = False

    def on_operation(self) -> Iterator[None]:
        self._named = (
            self.execution_context.operation_name is not None
        )  # later it would be that of the first
        self.execution_context.parse_options["max_tokens"] = self._settings.tokens_max
        yield
        self._show(self.execution_context.result)

    def on_parse(self) -> Iterator[None]:
        """Takes the document from those that were seen before. One that is too long is not even read: that takes its time."""
        query, chars_max = self.execution_context.query or "", self._settings.document_max_chars
        if len(query) > chars_max:
            raise too_complex("too many characters (long texts belong into variables)", chars_max)
        kept = self._documents.get(query)
        if kept is not None:
            self.execution_context.graphql_document, self._valid = kept, True
        yield

    def on_validate(self) -> Iterator[None]:
        """Validates, the cheap limits first, in Strawberry's stead, which knows no limit of errors."""
        document = self.execution_context.graphql_document
        assert document is not None, "it was parsed"
        self.execution_context.pre_execution_errors = self._faults(document)
        yield

    def on_execute(self) -> Iterator[None]:
        """Gives the operation loaders of its own. What a subscription loaded for one event is old by the next."""
        streaming = self.execution_context.operation_type is OperationType.SUBSCRIPTION
        self.execution_context.context = self.execution_context.context.for_operation(
            SearchBudget(self._slots), keep=not streaming
        )
        yield

    def _faults(self, document: DocumentNode) -> list[GraphQLError]:
        if not self._valid and (fault := check_shape(document, self._settings)):
            return [fault]
        if fault := check_cost(
            self._schema, document, self.execution_context.variables or {}, self._settings.cost_max
        ):
            return [fault]
        if not self._valid:
            if faults := validate(
                self._schema, document, specified_rules, max_errors=ERRORS_MAX - 1
            ):
                return faults
            self._documents.keep(self.execution_context.query or "", document)
            self._valid = True
        return self._unnamed(document)

    def _unnamed(self, document: DocumentNode) -> list[GraphQLError]:
        """The error where nobody said which of several operations is meant; Strawberry would run the first."""
        operations = [
            each for each in document.definitions if isinstance(each, OperationDefinitionNode)
        ]
        if self._named or len(operations) < 2:
            return []
        return [
            GraphQLError(
                "The document has several operations: say which in `operationName`.",
                extensions={"code": "invalid_document"},
            )
        ]

    def _show(self, result: Any) -> None:
        if getattr(result, "errors", None):
            context: Context = self.execution_context.context
            result.errors = [
                shown(error, context.request_id, valid=self._valid)
                for error in result.errors[:ERRORS_MAX]
            ]
