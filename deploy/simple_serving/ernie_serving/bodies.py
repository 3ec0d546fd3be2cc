"""Bodies of requests, and what becomes of a request whose client goes away."""

import asyncio
import json

from starlette.requests import ClientDisconnect

from .errors import ApiError, bad_request, too_large


async def read_body(request, limit, seconds):
    """A request's body, at most `limit` bytes.

    Raises:
        ApiError: 413; 408, if it takes longer than `seconds` to arrive; 499, if the client goes away.
    """

    async def read():
        content = bytearray()
        async for chunk in request.stream():
            content += chunk
            if len(content) > limit:
                raise too_large("bytes of the request", limit, len(content))
        return bytes(content)

    try:
        return await asyncio.wait_for(read(), seconds)
    except asyncio.TimeoutError:
        raise ApiError(408, "timeout", f"the request did not arrive within {seconds:g} s") from None
    except ClientDisconnect:
        raise client_gone() from None


def load_json(content):
    """JSON in UTF-8.

    Raises:
        ApiError: 400.
    """
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as e:
        raise bad_request(f"the body is not UTF-8: {e.reason} at byte {e.start}") from None
    except (ValueError, RecursionError) as e:
        raise bad_request(f"the body is not JSON: {str(e) or 'nested too deeply':.200}") from None


def _no_constant(name):
    raise ValueError(f"{name} is not JSON")


async def while_connected(request, answering):
    """Awaits a coroutine, and cancels it when the client goes away: what has not run yet leaves the queue.

    Raises:
        ApiError: 499, which nobody reads; it is counted.
    """
    task = asyncio.ensure_future(answering)
    try:
        while not (await asyncio.wait({task}, timeout=0.25))[0]:
            if await request.is_disconnected():
                raise client_gone()
        return task.result()
    finally:
        task.cancel()


def client_gone():
    return ApiError(499, "client_gone", "the client went away")
