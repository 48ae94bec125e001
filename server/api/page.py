"""The built pages in `server/page`: HTML files, and assets with a content hash in their names."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from server.serve.pages import FOLDER, html_page


class Assets(StaticFiles):
    """Scripts, styles and fonts, which browsers may cache forever."""

    def __init__(self) -> None:
        super().__init__(directory=FOLDER / "assets", check_dir=False)

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


async def show(request: Request) -> Response:
    """Shows the chat page, at each of its URLs."""
    return html_page("index.html", request.state.services.settings.server.base_path)
