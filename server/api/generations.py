"""Generations: snapshots, event streams and cancellation; and the list of models."""

from starlette.requests import Request
from starlette.responses import Response

from server.api.http import Json, after_seq, flag, stream_response, wait_s
from server.api.present import model_json, page_json
from server.dialects import native
from server.identity.credentials import caller_of
from server.lifecycle.row_events import snapshot_data
from server.verbs import generations


async def show(request: Request) -> Response:
    """Returns the snapshot of a generation, with everything written so far."""
    caller, services = await caller_of(request), request.state.services
    return Json(snapshot_data(*await generations.get(services, caller, request.path_params["id"])))


async def events(request: Request) -> Response:
    """Follows one generation from the reader's cursor: past events, then live ones, to its end."""
    caller = await caller_of(request)
    snapshot, seq = bool(flag(request, "snapshot")), after_seq(request)
    batches = await generations.follow(
        request.state.services,
        caller,
        request.path_params["id"],
        after_seq=0 if snapshot else seq,
        snapshot=snapshot,
    )
    return stream_response(request, caller, batches, native.encode_batch)


async def cancel(request: Request) -> Response:
    """Cancels a generation, waits up to `wait_s` for its end, and returns its snapshot."""
    caller, services, id = (
        await caller_of(request),
        request.state.services,
        request.path_params["id"],
    )
    cancelled = await generations.cancel(services, caller, id, wait_s=wait_s(request))
    [live] = await generations.with_content(services, [cancelled])
    return Json(snapshot_data(*live))


async def models(request: Request) -> Response:
    """Lists the models that can be requested, and which is the default."""
    await caller_of(request)
    offered = request.state.services.models
    data = [model_json(model, default=offered.is_default(model)) for model in offered.all]
    return Json(page_json(data, None))
