"""GraphiQL: a page at /graphql for people, bundled with the chat page. Nothing of it comes from elsewhere."""

from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, Response

import server
from server.errors import NotFound

PAGE: Final = Path(server.__file__).parent / "page" / "graphiql.html"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""Its editor writes styles into the page as it goes, and its fonts are in its style sheet."""


def is_for_people(request: Request) -> bool:
    """Whether a browser asks for something to look at."""
    return request.method in ("GET", "HEAD") and "text/html" in request.headers.get("accept", "")


def page() -> Response:
    """The page. Raises NotFound where this copy has none."""
    if not PAGE.is_file():
        raise NotFound(
            "page: this copy was installed without it; run `npm run build` in web/, or install the package again"
        )
    return FileResponse(
        PAGE, headers={"Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
    )
