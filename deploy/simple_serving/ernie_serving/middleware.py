"""What happens to every request: the key is checked, and it is counted, timed, logged and given an id."""

import asyncio
import hmac
import json
import logging
import re
import time
import urllib.parse
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

from .errors import ApiError, unavailable

logger = logging.getLogger("ernie_serving")
# These need no API_KEY: probes and Prometheus send none, and the page asks for it.
OPEN_ROUTES = {"/", "/health", "/ready", "/metrics", "/v2/health/live", "/v2/health/ready"}
_HARMLESS_ID = re.compile("[!-~]{1,128}")


class Watch:
    """ASGI middleware. A plain one: Starlette's BaseHTTPMiddleware costs a task per request."""

    def __init__(self, app, host):
        self.app, self.host = app, host

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin = time.perf_counter()
        scope.setdefault("state", {})["begin"] = begin
        headers = Headers(scope=scope)
        request_id = _safe_id(headers.get("x-request-id"))
        status = None

        async def send_on(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                out = MutableHeaders(scope=message)
                out["x-request-id"] = request_id
                out["x-total-time"] = f"{1000 * (time.perf_counter() - begin):.2f}"
                if self.host.draining:
                    out["connection"] = "close"  # else the client's next request would meet a closed connection
            await send(message)

        metrics = self.host.metrics
        metrics.in_flight.inc()
        try:
            if self._may_ask(scope["path"], headers):
                await self.app(scope, receive, send_on)
            else:
                error = ApiError(401, "unauthorized", "expected the header Authorization: Bearer <API_KEY>")
                await self.respond(error)(scope, receive, send_on)
        except asyncio.CancelledError:  # it took longer than shutdown_s
            if status is None:
                await self.respond(unavailable("the server is stopping", 5))(scope, receive, send_on)
        except Exception:
            logger.exception("request %s failed", request_id)
            if status is not None:
                raise
            await self.respond(ApiError(500, "internal", "the server failed; its log says why"))(
                scope, receive, send_on
            )
        finally:
            metrics.in_flight.dec()
            # Each unknown path would be a new label, and a client that asks for many of them would fill the memory.
            path = getattr(scope.get("route"), "path", "other")
            metrics.requests.labels(path, str(status)).inc()
            self._log(scope, status, request_id, time.perf_counter() - begin)

    def _may_ask(self, path, headers):
        key = self.host.settings.api_key
        sent = headers.get("authorization", "")
        return key is None or path in OPEN_ROUTES or hmac.compare_digest(sent.encode(), f"Bearer {key}".encode())

    def respond(self, error):
        """The response of an ApiError, which is counted."""
        return error_response(self.host, error)

    def _log(self, scope, status, request_id, seconds):
        fields = {
            "method": scope["method"],
            "path": urllib.parse.quote(scope["path"]),  # it may hold line breaks and escapes of a terminal
            "status": status,
            "ms": round(1000 * seconds, 1),
            "request_id": request_id,
        }
        if self.host.settings.log_json:
            logger.info("%s", json.dumps(fields, ensure_ascii=True))
        else:
            logger.info("%s", " ".join(f"{key}={value!s:.200}" for key, value in fields.items()))


def error_response(host, error):
    host.metrics.failures.labels(error.kind).inc()
    headers = {"retry-after": str(error.retry_after)} if error.retry_after else {}
    return JSONResponse(error.body(), error.status, headers)


def _safe_id(given):
    """A client's request id, if it is harmless in a header and a log, else a new one."""
    if given and _HARMLESS_ID.fullmatch(given):
        return given
    return uuid.uuid4().hex
