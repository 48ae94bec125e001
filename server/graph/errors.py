"""Errors as the graph shows them: with HTTP's codes, and nothing of a fault of ours but where it is recorded."""

from graphql import GraphQLError

from server.errors import Refused
from server.logs import log
from server.metrics import REQUESTS_FAILED

ERRORS_MAX = 20


def shown(error: GraphQLError, request_id: str) -> GraphQLError:
    """The error as the caller may see it, with `extensions.code`."""
    if error.extensions and "code" in error.extensions:
        return error
    cause = error.original_error
    while isinstance(cause, GraphQLError):
        cause = cause.original_error
    match cause:
        case None:
            return _with(error, error.message, {"code": "invalid_document" if error.path is None else "invalid_request"})
        case Refused():
            return _with(error, cause.detail, {"code": cause.code, **cause.members})
        case _:
            log.error("fault", request=request_id, path="/graphql", exc_info=cause)
            REQUESTS_FAILED.inc()
            return _with(error, f"The server failed; its log names request {request_id}.", {"code": "internal", "requestId": request_id})


def _with(error: GraphQLError, message: str, extensions: dict[str, object]) -> GraphQLError:
    return GraphQLError(message, nodes=error.nodes, source=error.source, positions=error.positions, path=error.path, extensions=extensions)
