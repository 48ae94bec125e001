"""The chat page: one HTML file for every address of it, and assets whose names change with their content."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

import server
from server.errors import NotFound

FOLDER = Path(server.__file__).parent / "page"


class Assets(StaticFiles):
    """The page's scripts and styles; kept by browsers for ever."""

    def __init__(self) -> None:
        super().__init__(directory=FOLDER / "assets", check_dir=False)

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


async def show(_request: Request) -> Response:
    """The page."""
    index = FOLDER / "index.html"
    if not index.is_file():
        raise NotFound(
            "page: this copy was installed without the chat page; run `npm run build` in web/, or install the package again"
        )
    return FileResponse(index, headers={"Cache-Control": "no-cache"})
