"""The budget of a response: how much may be read for it, and how many bytes it may have.

The cost of a document (`server.graph.cost`) counts fields before they are resolved. How many rows
there are and how large their values are is only known when they are read.
"""

from typing import Final

from graphql import GraphQLError

from server.graph.errors import too_complex

RESPONSE_MAX_BYTES: Final = 16 * 1024 * 1024
ROWS_MAX: Final = 10_000
"""How many objects an operation may read: ten to twenty MiB of rows without their content."""


class ResponseBudget:
    """The rows and text that may still be read for a response, and the bytes it may still have."""

    def __init__(self, max_bytes: int, rows_max: int = ROWS_MAX) -> None:
        self._max_bytes = self._left_bytes = self._left_chars = max_bytes
        self._rows_max = self._left_rows = rows_max
        self.exceeded = False

    @property
    def left_chars(self) -> int:
        """How many characters of content may still be read."""
        return max(0, self._left_chars)

    def charge(self, size_bytes: int) -> None:
        """Counts bytes of the response; raises GraphQLError once there are too many."""
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            raise self.refuse()

    def charge_content(self, chars: int) -> None:
        """Counts characters of content that is read; raises GraphQLError once there are too many."""
        self._left_chars -= chars
        if self._left_chars < 0:
            raise self.refuse()

    def charge_rows(self, rows: int) -> None:
        """Counts rows that are read; raises GraphQLError once there are too many."""
        self._left_rows -= rows
        if self._left_rows < 0:
            self.exceeded = True
            raise too_complex(
                f"The operation exceeds the limit of {self._rows_max} objects.", self._rows_max
            )

    def refuse(self) -> GraphQLError:
        """The error for a response that would be too large."""
        self.exceeded = True
        return too_complex(
            f"The response exceeds the limit of {self._max_bytes} bytes.", self._max_bytes
        )
