"""GraphQL errors for callers, with the codes of the HTTP interface.

An internal error is logged, and the caller gets the request id instead of its message.
"""

import re
from typing import Any

from graphql import GraphQLError, GraphQLSyntaxError

from server.errors import Refused
from server.logs import log
from server.metrics import REQUESTS_FAILED
from server.serve.refusals import log_refusal

TOO_COMPLEX = "document_too_complex"
PATH = "/graphql"
ERRORS_MAX = 20
MESSAGE_MAX_CHARS = 1000
TOO_MANY_TOKENS = re.compile(r"Syntax Error: Document contains more than (\d+) tokens")
TOO_DEEP = "Syntax Error: Document is nested too deeply"
PARSER_DEPTH_MAX = 200


def too_complex(message: str, limit: int) -> GraphQLError:
    """The error for a document or a response that exceeds a limit."""
    return GraphQLError(message, extensions={"code": TOO_COMPLEX, "limit": limit})


def is_too_complex(error: GraphQLError) -> bool:
    """Whether an error was made by `too_complex`."""
    return (error.extensions or {}).get("code") == TOO_COMPLEX


def present_error(error: GraphQLError, request_id: str, *, valid: bool = True) -> GraphQLError:
    """The error for the caller, with `extensions.code`. `valid`: the document passed validation."""
    if error.extensions and "code" in error.extensions:
        return error
    cause: BaseException | None = error
    while isinstance(cause, GraphQLError):
        cause = cause.original_error
    if isinstance(cause, Refused):
        log_refusal(cause, request_id, PATH)
        return _with(error, *refusal(cause))
    if cause is not None and valid:
        log.error("internal_error", request=request_id, path=PATH, exc_info=cause)
        REQUESTS_FAILED.inc()
        return _with(
            error,
            f"Internal server error. The server logged it with request id {request_id}.",
            {"code": "internal", "requestId": request_id},
        )
    if isinstance(error, GraphQLSyntaxError) and (tokens := TOO_MANY_TOKENS.match(error.message)):
        limit = int(tokens[1])
        return too_complex(f"The document exceeds the limit of {limit} tokens.", limit)
    if isinstance(error, GraphQLSyntaxError) and error.message.startswith(TOO_DEEP):
        return too_complex(
            f"The document exceeds the limit of {PARSER_DEPTH_MAX} levels of nesting.",
            PARSER_DEPTH_MAX,
        )
    return _with(
        error,
        error.message[:MESSAGE_MAX_CHARS],
        {"code": "invalid_request" if valid else "invalid_document"},
    )


def refusal(refused: Refused) -> tuple[str, dict[str, object]]:
    """The message and the extensions of a refused request, with names in camelCase."""
    detail = refused.detail
    extensions: dict[str, object] = {"code": refused.code}
    for name, member in refused.members.items():
        extensions[camel(name)] = (
            [_in_camel_case(each) for each in member]
            if name == "errors" and isinstance(member, list)
            else member
        )
    name, colon, rest = detail.partition(":")
    return (f"{camel(name)}{colon}{rest}" if re.fullmatch(r"[a-z_]+", name) else detail), extensions


def camel(name: str) -> str:
    """`system_prompt` as `systemPrompt`."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _in_camel_case(error: dict[str, Any]) -> dict[str, Any]:
    first, *rest = error["pointer"].removeprefix("/").split("/")
    return error | {"pointer": "/".join(["", camel(first), *rest]) if first else ""}


def _with(error: GraphQLError, message: str, extensions: dict[str, object]) -> GraphQLError:
    return GraphQLError(
        message,
        nodes=error.nodes,
        source=error.source,
        positions=error.positions,
        path=error.path,
        extensions=extensions,
    )
