"""The error tree.

TidemarkError
├── SettingsError           the program cannot start as it is configured (exit 2)
├── StartError              the program cannot start as things are (exit 1)
└── Refused                 a request that was understood and will not be served
    ├── Unreadable 400          ├── Conflict 409
    ├── InvalidCursor 400       ├── TooLarge 413
    ├── Unauthenticated 401     ├── UnsupportedType 415
    ├── Forbidden 403           ├── Invalid 422
    ├── NotFound 404            ├── TooMany 429
    ├── MethodNotAllowed 405    ├── Unavailable 503
    └── RequestTimeout 408      └── Overloaded 503
"""

from typing import ClassVar


class TidemarkError(Exception):
    """Anything Tidemark raises on purpose."""


class SettingsError(TidemarkError):
    """A setting is wrong; the message is one line: source, key, value, and what is expected."""


class StartError(TidemarkError):
    """A port, a folder or a service prevents the start; the message is one line."""


class Refused(TidemarkError):
    """A request that was understood and is refused; `detail` is for the caller."""

    status: ClassVar[int] = 400
    title: ClassVar[str] = "Refused"

    def __init__(self, code: str, detail: str, **members: object) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.members = members  # further members of the problem document, e.g. `limit`


class Unreadable(Refused):
    """The request could not be read at all."""

    status, title = 400, "Bad request"


class InvalidCursor(Unreadable):
    """The cursor is malformed, or beyond the end of an answer that has ended."""

    def __init__(self, detail: str) -> None:
        super().__init__("invalid_cursor", detail)


class Unauthenticated(Refused):
    """The request has no credentials, or they are not valid."""

    status, title = 401, "Unauthorized"

    def __init__(
        self,
        detail: str = "Not authenticated. Sign in, or send an API key as 'Authorization: Bearer tmk_…'.",
    ) -> None:
        super().__init__("unauthenticated", detail)


class Forbidden(Refused):
    """The request comes from another site, or is for something this server does not allow."""

    status, title = 403, "Forbidden"


class NotFound(Refused):
    """It does not exist, or it is not the caller's: the response is the same."""

    status, title = 404, "Not found"

    def __init__(self, what: str = "", *, detail: str = "Not found.") -> None:
        super().__init__("not_found", f"There is no such {what}." if what else detail)


class MethodNotAllowed(Refused):
    """The path exists, but not with this method."""

    status, title = 405, "Method not allowed"


class RequestTimeout(Refused):
    """The request did not arrive in time."""

    status, title = 408, "Request timeout"


class Conflict(Refused):
    """The request conflicts with the current state."""

    status, title = 409, "Conflict"


class TooLarge(Refused):
    """The request exceeds a size limit."""

    status, title = 413, "Content too large"


class UnsupportedType(Refused):
    """The media type of the body is not supported."""

    status, title = 415, "Unsupported media type"


class Invalid(Refused):
    """The request is readable but invalid; `errors` points at each invalid value."""

    status, title = 422, "Unprocessable content"

    @classmethod
    def at(cls, pointer: str, detail: str, *, code: str = "invalid_request") -> "Invalid":
        """One invalid value: `pointer` is a JSON pointer into the body, or a parameter's name."""
        name = pointer.lstrip("/").replace("/", ".")
        return cls(code, f"{name}: {detail}.", errors=[{"pointer": pointer, "detail": detail}])


class TooMany(Refused):
    """A limit is reached; `retry_after_s` says when to try again."""

    status, title = 429, "Too many requests"

    def __init__(self, code: str, detail: str, *, limit: int, retry_after_s: int) -> None:
        super().__init__(code, detail, limit=limit, retry_after_s=retry_after_s)


class Unavailable(Refused):
    """A service that this server needs is unavailable."""

    status, title = 503, "Service unavailable"

    def __init__(self, detail: str) -> None:
        super().__init__("unavailable", detail, retry_after_s=1)


class Overloaded(Refused):
    """The process has as many connections open as it may have."""

    status, title = 503, "Service unavailable"

    def __init__(self, connections_max: int) -> None:
        detail = f"This process has reached its limit of {connections_max} connections."
        super().__init__("too_many_connections", detail, limit=connections_max, retry_after_s=1)
