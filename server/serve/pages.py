"""The built pages in `server/page`, whose HTML files are served with a content security policy."""

from html import escape
from pathlib import Path
from typing import Final

from starlette.responses import HTMLResponse, Response

import server
from server.errors import NotFound

FOLDER: Final = Path(server.__file__).parent / "page"
NOT_BUILT: Final = (
    "This page is not installed: run `npm run build` in web/, or reinstall the package."
)


def html_page(name: str, base_path: str, policy: str | None = None) -> Response:
    """A built page whose addresses are below `base_path`, with its own policy if it has one.

    Raises NotFound if this copy was installed without the pages.
    """
    try:
        html = (FOLDER / name).read_text()
    except FileNotFoundError:
        raise NotFound(detail=NOT_BUILT) from None
    html = html.replace("<head>", f'<head>\n    <base href="{escape(base_path)}/" />', 1)
    headers = {"Cache-Control": "no-cache"}
    if policy is not None:
        headers["Content-Security-Policy"] = policy
    return HTMLResponse(html, headers=headers)
