"""The one error tree.

TidemarkError
├── SettingsError           the program cannot start as it is configured (exit 2)
├── StartError              the program cannot start as things are (exit 1)
└── Refused                 a request that was understood and will not be served
    ├── Unreadable 400          ├── Conflict 409
    ├── InvalidCursor 400       ├── TooLarge 413
    ├── Unauthenticated 401     ├── UnsupportedType 415
    ├── Forbidden 403           ├── Invalid 422
    ├── NotFound 404            ├── TooMany 429
    └── MethodNotAllowed 405    └── Unavailable 503
"""

from typing import ClassVar


class TidemarkError(Exception):
    """Anything Tidemark raises on purpose."""


class SettingsError(TidemarkError):
    """A setting is wrong; the message is one line: where, key, value, what is allowed."""


class StartError(TidemarkError):
    """Something outside is in the way of starting: a port, a folder, a database; the message is one line."""


class Refused(TidemarkError):
    """A request that was understood and will not be served; `detail` is written for the caller."""

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
    """The cursor is no number, or lies beyond the end of an answer that has ended."""

    def __init__(self, detail: str) -> None:
        super().__init__("invalid_cursor", detail)


class Unauthenticated(Refused):
    """Nobody is signed in, or the key is not (or no longer) valid."""

    status, title = 401, "Unauthorized"

    def __init__(
        self, detail: str = "Sign in, or send an API key as 'Authorization: Bearer tmk_…'."
    ) -> None:
        super().__init__("unauthenticated", detail)


class Forbidden(Refused):
    """The request comes from another site, or asks for what this server does not offer."""

    status, title = 403, "Forbidden"


class NotFound(Refused):
    """It is not there, or it is not yours: the two are one."""

    status, title = 404, "Not found"

    def __init__(self, what: str) -> None:
        super().__init__("not_found", f"There is no such {what}.")


class MethodNotAllowed(Refused):
    """There is something at this address, but nothing to do with it by this method."""

    status, title = 405, "Method not allowed"


class Conflict(Refused):
    """The request does not fit the state things are in."""

    status, title = 409, "Conflict"


class TooLarge(Refused):
    """The request is larger than this server takes."""

    status, title = 413, "Content too large"


class UnsupportedType(Refused):
    """The body is of a media type that is not read here."""

    status, title = 415, "Unsupported media type"


class Invalid(Refused):
    """The request was readable and is wrong; `errors` points at each fault."""

    status, title = 422, "Unprocessable content"

    @classmethod
    def at(cls, pointer: str, detail: str, *, code: str = "invalid_request") -> "Invalid":
        """One fault: `pointer` is a JSON pointer into the body, or the name of a parameter."""
        name = pointer.lstrip("/").replace("/", ".")
        return cls(code, f"{name}: {detail}.", errors=[{"pointer": pointer, "detail": detail}])


class TooMany(Refused):
    """A limit is reached; `retry_after_s` says when to come back."""

    status, title = 429, "Too many requests"

    def __init__(self, code: str, detail: str, *, limit: int, retry_after_s: int) -> None:
        super().__init__(code, detail, limit=limit, retry_after_s=retry_after_s)


class Unavailable(Refused):
    """Something this server needs is away for now."""

    status, title = 503, "Service unavailable"

    def __init__(self, detail: str) -> None:
        super().__init__("unavailable", detail, retry_after_s=1)
