"""GraphiQL, the page at /graphql for browsers. It is bundled and loads nothing from elsewhere."""

from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, Response

import server
from server.errors import NotFound

PAGE: Final = Path(server.__file__).parent / "page" / "graphiql.html"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'"
)
"""The editor creates inline styles, and the fonts are embedded in the style sheet."""


def is_page_request(request: Request) -> bool:
    """Whether a browser requests an HTML page."""
    return request.method in ("GET", "HEAD") and "text/html" in request.headers.get("accept", "")


def page() -> Response:
    """The page. Raises NotFound if it was not built."""
    if not PAGE.is_file():
        detail = "GraphiQL is not installed: run `npm run build` in web/, or reinstall the package."
        raise NotFound(detail=detail)
    return FileResponse(
        PAGE, headers={"Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
    )
