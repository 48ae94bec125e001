"""Refusals over HTTP: their problem documents, their headers, and what of them is logged."""

import orjson
from starlette.responses import Response

from server.errors import Refused
from server.logs import audit, log

REQUEST_ID_HEADER = "Tidemark-Request-Id"


def problem(refused: Refused, request_id: str) -> Response:
    """A refusal as `application/problem+json` (RFC 9457)."""
    document = {
        "type": f"urn:tidemark:problem:{refused.code}",
        "title": refused.title,
        "status": refused.status,
        "detail": refused.detail,
        "code": refused.code,
        "request_id": request_id,
    }
    body = orjson.dumps({**document, **refused.members})
    return Response(body, refused.status, headers_of(refused), "application/problem+json")


def headers_of(refused: Refused) -> dict[str, str]:
    """The headers of the response, whatever the format of its body."""
    headers = {}
    if "retry_after_s" in refused.members:
        headers["Retry-After"] = str(refused.members["retry_after_s"])
    if refused.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if refused.status == 408:
        headers["Connection"] = "close"  # the rest of the body may still come
    return headers


def log_refusal(refused: Refused, request_id: str, path: str) -> None:
    """Logs a refusal that operators should know about."""
    if refused.status >= 500:
        log.warning("unavailable", request=request_id, path=path, reason=str(refused))
    elif refused.status == 429 or refused.code == "cross_site":
        audit("refused", request=request_id, path=path, code=refused.code)
