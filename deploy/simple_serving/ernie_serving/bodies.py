"""Bodies of requests, and requests whose client disconnects."""

import asyncio
import json

from ernie_predictor.formats import unique_fields
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
        return json.loads(content.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=unique_fields)
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
    answer, gone = asyncio.ensure_future(answering), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise client_gone()
        return answer.result()
    finally:
        answer.cancel()
        gone.cancel()


async def _gone(request):
    """Waits until the client goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def client_gone():
    return ApiError(499, "client_gone", "the client went away")
