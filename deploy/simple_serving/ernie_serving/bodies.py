"""Bodies of requests, and requests whose client disconnects."""

import asyncio
import itertools
import json
import re

from ernie_predictor.formats import encoding_hint, unique_fields
from starlette.requests import ClientDisconnect

from .errors import ApiError, bad_request, timed_out, too_large

LARGE = 65_536  # bytes of a body that is read, and of an answer that is written, off the event loop
ARRIVING = 2  # so many bodies of the largest size may arrive at the same time


class Bodies:
    """Reads the bodies of a server's requests.

    Args:
        limit: bytes per body.
        seconds: that a body may take to arrive.
    """

    def __init__(self, limit, seconds):
        self.limit, self.seconds = limit, seconds
        self.arriving = 0  # bytes of the large ones that have not arrived as a whole

    async def read(self, request):
        """A request's body.

        Raises:
            ApiError: 408, 413 or 415; 429, if too many large ones arrive at once; 499, if the client goes away.
        """
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise ApiError(
                415, "unsupported_encoding", f"Content-Encoding {encoding:.40} is not supported: send plain JSON"
            )
        length = request.headers.get("content-length", "")
        if length.isdecimal() and len(length) < 20 and int(length) > self.limit:  # known before it arrives
            raise too_large("bytes of the request", self.limit, int(length))
        try:
            return await asyncio.wait_for(self._read(request), self.seconds)
        except asyncio.TimeoutError:
            raise ApiError(408, "timeout", f"the request did not arrive within {self.seconds:g} s") from None
        except ClientDisconnect:
            raise client_gone() from None

    async def _read(self, request):
        content, counted = bytearray(), 0
        try:
            async for chunk in request.stream():
                content += chunk
                if len(content) > self.limit:
                    raise too_large("bytes of the request", self.limit, len(content))
                if len(content) > LARGE:
                    self.arriving += len(content) - counted
                    counted = len(content)
                    if self.arriving > ARRIVING * self.limit:
                        raise ApiError(429, "overloaded", "too many large requests arrive at once", 1)
            return bytes(content)
        finally:
            self.arriving -= counted


_VALUES = re.compile(rb'"[^"]*"|[\[{:]|[^\s",:\[\]{}]+')


def load_json(content, most=None):
    """JSON in UTF-8.

    Args:
        most: lists, objects, fields and numbers that a large body may have. All other requests stand still while
            Python reads millions of them, which take many times the memory of the body; only texts are read fast.

    Raises:
        ApiError: 400.
    """
    if most is not None and len(content) > LARGE:
        plain = content
        if b"\\" in content:  # so that each quotation mark begins or ends a text
            plain = content.replace(b"\\\\", b"").replace(b'\\"', b"")
        values = (plain[match.start()] != ord('"') for match in _VALUES.finditer(plain))
        if next(itertools.islice(filter(None, values), most, None), False):
            raise bad_request(f"the body has more than {most:,} lists, fields and numbers")
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=unique_fields)
    except UnicodeDecodeError as e:
        hint = encoding_hint(content, "send")
        raise bad_request(f"the body is not UTF-8: {e.reason} at byte {e.start}{hint}") from None
    except (ValueError, RecursionError) as e:
        raise bad_request(f"the body is not JSON: {str(e) or 'nested too deeply':.200}") from None


def _no_constant(name):
    raise ValueError(f"{name} is not JSON")


async def while_connected(request, answering, seconds):
    """Awaits a coroutine, and cancels it when the client goes away: what has not run yet leaves the queue.

    Raises:
        ApiError: 504, if it takes longer than `seconds`; 499, which nobody reads; it is counted.
    """
    answer, gone = asyncio.ensure_future(answering), asyncio.ensure_future(_gone(request))
    try:
        # A second more: the queue itself ends what waits too long, and the model a batch that it has begun.
        await asyncio.wait({answer, gone}, timeout=seconds + 1, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise client_gone() if gone.done() else timed_out(seconds)
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
