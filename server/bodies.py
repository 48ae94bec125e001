"""Reading the bodies of requests, within their limits."""

from starlette.requests import Request

from server.errors import TooLarge


async def read_bytes(request: Request, limit: int) -> bytes:
    """The body of a request; raises TooLarge as soon as it is known to be."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(limit: int) -> TooLarge:
    return TooLarge("body_too_large", f"The body is larger than {limit} bytes.", limit=limit)
