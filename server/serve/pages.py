"""The built pages in `server/page`, whose HTML files are served with a content security policy."""

from pathlib import Path
from typing import Final

from starlette.responses import FileResponse, Response

import server
from server.errors import NotFound

FOLDER: Final = Path(server.__file__).parent / "page"
NOT_BUILT: Final = (
    "This page is not installed: run `npm run build` in web/, or reinstall the package."
)


def html_page(name: str, policy: str | None = None) -> Response:
    """A built page, with its own content security policy if it has one.

    Raises NotFound if this copy was installed without the pages.
    """
    file = FOLDER / name
    if not file.is_file():
        raise NotFound(detail=NOT_BUILT)
    headers = {"Cache-Control": "no-cache"}
    if policy is not None:
        headers["Content-Security-Policy"] = policy
    return FileResponse(file, headers=headers)
