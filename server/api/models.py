"""The models this installation offers."""

from starlette.requests import Request
from starlette.responses import Response

from server.api.http import Json
from server.identity.credentials import caller_of


async def list_(request: Request) -> Response:
    """Every model that can be asked for, and which is the default."""
    await caller_of(request)
    models = request.state.resources.models
    data = [
        {
            "id": model.id,
            "provider": model.provider,
            "name": model.name,
            "context_tokens": model.context_tokens,
            "default": model == models.default,
        }
        for model in models.all
    ]
    return Json({"data": data, "next": None})
