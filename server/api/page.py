"""The built pages in `server/page`: HTML files, and assets with a content hash in their names."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

import server
from server.errors import NotFound

FOLDER = Path(server.__file__).parent / "page"
NOT_BUILT = "This page is not installed: run `npm run build` in web/, or reinstall the package."


class Assets(StaticFiles):
    """Scripts, styles and fonts, which browsers may cache forever."""

    def __init__(self) -> None:
        super().__init__(directory=FOLDER / "assets", check_dir=False)

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


async def show(_request: Request) -> Response:
    """Shows the chat page, at each of its URLs."""
    return html_page("index.html")


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
