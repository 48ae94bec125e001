"""Errors as the graph shows them: with HTTP's codes, and nothing of a fault of ours but where it is recorded."""

import re
from typing import Any

from graphql import GraphQLError, GraphQLSyntaxError

from server.errors import Refused
from server.graph.cost import too_complex
from server.logs import log
from server.metrics import REQUESTS_FAILED

ERRORS_MAX = 20
MESSAGE_MAX_CHARS = 1000
TOO_MANY_TOKENS = re.compile(r"Syntax Error: Document contains more than (\d+) tokens")
TOO_DEEP, TOO_DEEP_FOR_THE_PARSER = "Syntax Error: Document is nested too deeply", 200


def shown(error: GraphQLError, request_id: str, *, valid: bool = True) -> GraphQLError:
    """The error as the caller may see it, with `extensions.code`; `valid` says whether the document itself is."""
    if error.extensions and "code" in error.extensions:
        return error
    cause: BaseException | None = error
    while isinstance(cause, GraphQLError):
        cause = cause.original_error
    if isinstance(cause, Refused):
        if cause.status >= 500:
            log.warning("unavailable", request=request_id, path="/graphql", reason=str(cause))
        return _with(error, *refusal(cause))
    if cause is not None and valid:
        log.error("fault", request=request_id, path="/graphql", exc_info=cause)
        REQUESTS_FAILED.inc()
        return _with(
            error,
            f"The server failed; its log names request {request_id}.",
            {"code": "internal", "requestId": request_id},
        )
    if isinstance(error, GraphQLSyntaxError) and (tokens := TOO_MANY_TOKENS.match(error.message)):
        return too_complex("too many words and signs", int(tokens[1]))
    if isinstance(error, GraphQLSyntaxError) and error.message.startswith(TOO_DEEP):
        return too_complex("fields or values nested too deep", TOO_DEEP_FOR_THE_PARSER)
    return _with(
        error,
        error.message[:MESSAGE_MAX_CHARS],
        {"code": "invalid_request" if valid else "invalid_document"},
    )


def refusal(refused: Refused) -> tuple[str, dict[str, object]]:
    """The message and the extensions of a refusal: HTTP's, with names as they are written here."""
    detail = refused.detail
    extensions: dict[str, object] = {"code": refused.code}
    for name, member in refused.members.items():
        extensions[camel(name)] = (
            [_fault(fault) for fault in member]
            if name == "errors" and isinstance(member, list)
            else member
        )
    name, colon, rest = detail.partition(":")
    return (f"{camel(name)}{colon}{rest}" if re.fullmatch(r"[a-z_]+", name) else detail), extensions


def camel(name: str) -> str:
    """`system_prompt` as `systemPrompt`."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _fault(fault: dict[str, Any]) -> dict[str, Any]:
    first, *rest = fault["pointer"].removeprefix("/").split("/")
    return fault | {"pointer": "/".join(["", camel(first), *rest]) if first else ""}


def _with(error: GraphQLError, message: str, extensions: dict[str, object]) -> GraphQLError:
    return GraphQLError(
        message,
        nodes=error.nodes,
        source=error.source,
        positions=error.positions,
        path=error.path,
        extensions=extensions,
    )
