"""Refusals: the headers and the log lines that they have in every interface."""

from server.errors import Refused
from server.logs import audit, log


def refusal_headers(refused: Refused) -> dict[str, str]:
    """The headers of a refusal's response."""
    headers = {}
    if "retry_after_s" in refused.members:
        headers["Retry-After"] = str(refused.members["retry_after_s"])
    if refused.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if refused.status == 408:
        headers["Connection"] = "close"  # the rest of the body may still come
    return headers


def log_refusal(refused: Refused, request_id: str, path: str) -> None:
    """Logs what an operator should know of: services that are away, and reached limits."""
    if refused.status >= 500:
        log.warning("unavailable", request=request_id, path=path, reason=str(refused))
    elif refused.status == 429 or refused.code == "cross_site":
        audit("refused", request=request_id, path=path, code=refused.code)
