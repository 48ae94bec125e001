"""Guards: limits of a document, checked before it is validated or executed, and its errors.

`Guard` is the Strawberry extension around every operation.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Final

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    specified_rules,
    validate,
)
from strawberry.extensions import SchemaExtension

from server.graph.context import Context
from server.graph.cost import check_cost, check_shape
from server.graph.errors import ERRORS_MAX, present_error, too_complex
from server.settings import GraphqlSettings

TOKENS_MAX: Final = 2000
DOCUMENT_MAX_CHARS: Final = 65_536
KEPT_DOCUMENTS_MAX: Final = 128
KEPT_DOCUMENT_MAX_CHARS: Final = 4096


class Documents:
    """A cache of parsed, valid documents: clients send the same few again and again."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, DocumentNode] = OrderedDict()

    def get(self, query: str) -> DocumentNode | None:
        if query in self._kept:
            self._kept.move_to_end(query)
        return self._kept.get(query)

    def keep(self, query: str, document: DocumentNode) -> None:
        """Caches a valid document, unless it is long."""
        if len(query) <= KEPT_DOCUMENT_MAX_CHARS:
            self._kept[query] = document
            if len(self._kept) > KEPT_DOCUMENTS_MAX:
                self._kept.popitem(last=False)


class Guard(SchemaExtension):
    """Checks one operation, and presents its errors."""

    def __init__(
        self,
        schema: GraphQLSchema,
        settings: GraphqlSettings,
        documents: Documents,
    ) -> None:
        self._schema, self._settings, self._documents = schema, settings, documents
        self._valid = self._named = False

    def on_operation(self) -> Iterator[None]:
        # Strawberry later sets the name to that of the first operation.
        self._named = self.execution_context.operation_name is not None
        self.execution_context.parse_options["max_tokens"] = TOKENS_MAX
        yield
        self._present_errors(self.execution_context.result)

    def on_parse(self) -> Iterator[None]:
        """Takes the document from the cache. One that is too long is not even parsed."""
        query = self.execution_context.query or ""
        if len(query) > DOCUMENT_MAX_CHARS:
            raise too_complex(
                f"The document exceeds the limit of {DOCUMENT_MAX_CHARS} characters. "
                "Send long texts as variables.",
                DOCUMENT_MAX_CHARS,
            )
        kept = self._documents.get(query)
        if kept is not None:
            self.execution_context.graphql_document, self._valid = kept, True
        yield

    def on_validate(self) -> Iterator[None]:
        """Validates in place of Strawberry, which does not limit the number of errors."""
        document = self.execution_context.graphql_document
        assert document is not None, "it was parsed"
        self.execution_context.pre_execution_errors = self._errors(document)
        yield

    def _errors(self, document: DocumentNode) -> list[GraphQLError]:
        if not self._valid and (error := check_shape(document)):
            return [error]
        if error := check_cost(
            self._schema, document, self.execution_context.variables or {}, self._settings.cost_max
        ):
            return [error]
        if not self._valid:
            if errors := validate(
                self._schema, document, specified_rules, max_errors=ERRORS_MAX - 1
            ):
                return errors
            self._documents.keep(self.execution_context.query or "", document)
            self._valid = True
        return self._ambiguity(document)

    def _ambiguity(self, document: DocumentNode) -> list[GraphQLError]:
        """The error for several operations without `operationName`; Strawberry runs the first."""
        operations = [
            each for each in document.definitions if isinstance(each, OperationDefinitionNode)
        ]
        if self._named or len(operations) < 2:
            return []
        return [
            GraphQLError(
                "The document has several operations. Select one with `operationName`.",
                extensions={"code": "invalid_document"},
            )
        ]

    def _present_errors(self, result: Any) -> None:
        if getattr(result, "errors", None):
            context: Context = self.execution_context.context
            result.errors = [
                present_error(error, context.request_id, valid=self._valid)
                for error in result.errors[:ERRORS_MAX]
            ]
