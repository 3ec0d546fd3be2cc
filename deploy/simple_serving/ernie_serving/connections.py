"""Connections: what uvicorn's HTTP protocol accepts without limit gets one, and a refused client can read why.

`python server_....py` uses it; others can: `uvicorn server_seq_cls:app --http ernie_serving.connections:Connection`.
"""

import contextlib
import json
import logging
import time

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from .errors import ApiError, unavailable

logger = logging.getLogger("ernie_serving")

RESERVED_FILES = 64  # file descriptors that are not connections: the model's files, the log, sockets
LINGER_S = 5  # how long a refused client may go on sending before it is cut off
DISCARDED_BYTES = 64 * 2**20  # and how much of a body
DISCARDED_HEAD = 4 * 2**20  # or of what is no request
MOST_PIPELINED = 100  # requests that a client may send before it has an answer
# A client that sends no more may have gone, or have closed only its own side: which one cannot be seen. For so long it
# is taken to wait for its answer.
HALF_CLOSED_S = 1


class Connections:
    """What the connections of a process share.

    Args:
        settings: `Settings`.
        metrics: `Metrics`.

    Attributes:
        limit: connections that may be open; fewer than `max_connections` where the process may open fewer files.
        silent, kept: connections without a complete head, the oldest first: those that have not had a request yet,
            and those kept open after an answer. In their order they are closed where there is no room for a new one.
    """

    def __init__(self, settings, metrics):
        self.settings, self.metrics = settings, metrics
        self.limit = settings.max_connections
        with contextlib.suppress(ImportError):  # Windows
            import resource

            files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            if files != resource.RLIM_INFINITY:
                self.limit = max(min(self.limit, files - RESERVED_FILES), 1)
        self.silent, self.kept = {}, {}
        self._said = None

    def make_room(self):
        """Closes the connection that has waited longest for a request. Returns whether there was one."""
        if self._said is None or time.monotonic() > self._said + 10:
            self._said = time.monotonic()
            logger.warning("%s connections are open, as many as may be; the oldest idle ones are closed", self.limit)
        for idle in (self.silent, self.kept):
            if idle:
                next(iter(idle)).abort()
                return True
        return False


class _Transport:
    """A connection's transport; `close` is the connection's own, and what is written after it is dropped."""

    def __init__(self, transport, connection):
        self._transport, self._connection = transport, connection
        self.close = connection.finish

    def write(self, data):
        if not self.is_closing():
            self._transport.write(data)

    def is_closing(self):
        return self._connection.finished or self._transport.is_closing()

    def __getattr__(self, name):
        return getattr(self._transport, name)


class Connection(HttpToolsProtocol):
    """One client's connection.

    Attributes:
        unread: bytes since the last part of a request that was complete: a head, or a piece of a body.
        arriving: whether a request has begun and not yet arrived as a whole.
        in_head: whether its head has not.
        running: uvicorn's cycle of the request that is being answered; `cycle` is the last one that has arrived.
        finished: whether no more is answered here.
    """

    def __init__(self, config, server_state, app_state, _loop=None):
        super().__init__(config, server_state, app_state, _loop)
        self.shared = app_state["connections"]
        self.seconds = self.shared.settings.timeout_s
        self.unread = self.discarded = 0
        self.may_discard = DISCARDED_BYTES
        self.arriving = self.in_head = self.finished = self.half_closed = self.offers_upgrade = False
        self.running = None
        self.refusal = None  # an ApiError that a callback of the parser raised
        self.deadline = self.stalled = None  # timers: for the client to send, and to read

    # ------------------------------------------------------------------------------------------------ the connection

    def connection_made(self, transport):
        self.socket = transport
        super().connection_made(_Transport(transport, self))
        if len(self.connections) > self.shared.limit and not self.shared.make_room():
            self.refuse(unavailable(f"{self.shared.limit:,} connections are open, as many as may be", 5), linger=False)
            return
        self.shared.silent[self] = None
        self._wait(self.seconds)

    def connection_lost(self, exc):
        self.finished = True
        self._is_idle(None)
        self._wait(None)
        self.resume_writing()
        super().connection_lost(exc)
        self._end_running()

    def _is_idle(self, where):
        self.shared.silent.pop(self, None)
        self.shared.kept.pop(self, None)
        if where is not None:
            where[self] = None

    def _wait(self, seconds):
        """Sets the deadline for what the client is to send; None: there is none."""
        if self.deadline is not None:
            self.deadline.cancel()
        self.deadline = None if seconds is None else self.loop.call_later(seconds, self._is_late)

    def _is_late(self):
        self.deadline = None
        answering = self.cycle is not None and not self.cycle.response_complete
        if self.finished or (self.arriving and not self.in_head and not answering):
            self.abort()  # what still came was discarded
        elif answering:
            self._wait(LINGER_S)  # the application has a time limit of its own
        elif self.arriving or self.unread:
            self.refuse(ApiError(408, "timeout", f"the request did not arrive within {self.seconds:g} s"))
        else:
            self.abort()

    def abort(self):
        self.finished = True
        self._is_idle(None)
        self.socket.abort()

    def finish(self):
        """Closes the connection once its client can have read the answer.

        Closed while data comes in, a connection is reset, and the client loses the answer: so the server says that it
        sends no more, and discards what still arrives (RFC 9112, 9.6).
        """
        if self.finished:
            return
        self.finished = True
        if self.socket.is_closing():
            return
        if not self.arriving:
            self._wait(self.seconds if self.socket.get_write_buffer_size() else None)
            self.socket.close()
            return
        self.flow.resume_reading()
        if self.socket.can_write_eof():
            self.socket.write_eof()
        self.shared.silent[self] = None
        self._wait(LINGER_S)

    def refuse(self, error, linger=True):
        """Answers what cannot be given to the application, and closes."""
        if self.finished:
            return
        logger.info("connection refused: status=%s %s", error.status, error)
        self.shared.metrics.failures.labels(error.kind).inc()
        self.shared.metrics.requests.labels("other", str(error.status)).inc()
        if not self._end_running():
            content = json.dumps(error.body()).encode()
            lines = [name + b": " + value + b"\r\n" for name, value in self.server_state.default_headers]
            if error.retry_after:
                lines.append(b"retry-after: %d\r\n" % error.retry_after)
            lines.append(b"content-type: application/json\r\ncontent-length: %d\r\n" % len(content))
            self.socket.write(b"".join([STATUS_LINE[error.status], *lines, b"connection: close\r\n\r\n", content]))
        self.arriving, self.may_discard = linger, DISCARDED_HEAD
        self.finish()

    def _end_running(self):
        """Tells the application that nobody waits. Returns whether the answer has begun."""
        cycle = self.running
        if cycle is None or cycle.response_complete:
            return False
        cycle.disconnected = True
        cycle.message_event.set()
        return cycle.response_started

    def shutdown(self):
        """The server is about to stop: what is not yet a whole request will not be one."""
        if self.finished:
            self.abort()
        elif self.arriving and not self.in_head and not self.cycle.response_complete:
            self.refuse(unavailable("the server is stopping", 5), linger=False)
        else:
            self.arriving = False
            super().shutdown()

    # ------------------------------------------------------------------------------------------------ what comes in

    def data_received(self, data):
        if self.finished:
            self._discard(data)
            return
        self._unset_keepalive_if_required()
        self.unread += len(data)
        head = self.in_head or not self.arriving
        settings = self.shared.settings
        try:
            while True:
                try:
                    self.parser.feed_data(data)
                    break
                except httptools.HttpParserUpgrade as e:
                    data = self._without_upgrade() + data[e.args[0] :]
            if self.in_head:
                self._check_head()
            elif self.unread > settings.max_header_bytes:  # of trailers, or of what is between two pieces of a body
                raise _head_too_large(settings)
        except ApiError as e:
            self.refuse(e)
        except httptools.HttpParserError:
            self.refuse(self.refusal or ApiError(400, "bad_request", "this is no HTTP/1.1 request"))
        else:
            waits = self.arriving or self.unread > 0
            body_begins = head and self.arriving and not self.in_head
            if not self.finished and (body_begins or waits != (self.deadline is not None)):
                self._wait(self.seconds if waits else None)

    def _discard(self, data):
        self.discarded += len(data)
        if self.discarded > self.may_discard:
            self.abort()

    def _check_head(self):
        settings, size = self.shared.settings, self.unread
        if not self.in_head:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > settings.max_header_bytes or len(self.headers) > settings.max_headers:
            raise _head_too_large(settings)

    def _without_upgrade(self):
        """The head of a request that offers another protocol, without the offer, for a new parser.

        curl --http2 and Java's HttpClient offer HTTP/2 with each first request. A server may ignore it (RFC 9110,
        7.8), but httptools would take the body for the other protocol's.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise ApiError(405, "not_allowed", "CONNECT is not allowed here")
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b\r\n" % (method, self.url, version)]
        lines += [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        self.offers_upgrade = False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        return b"".join(lines) + b"\r\n"

    def on_message_begin(self):
        super().on_message_begin()
        self.arriving = self.in_head = True

    def on_headers_complete(self):
        self.in_head = False
        try:
            self._check_head()
        except ApiError as e:
            self.refusal = e
            raise
        if self.parser.should_upgrade():
            self.offers_upgrade = True
            return
        self.unread = 0
        self._is_idle(None)
        super().on_headers_complete()
        if len(self.pipeline) > MOST_PIPELINED:
            self.refusal = ApiError(429, "overloaded", "too many requests at once on one connection", 1)
            raise self.refusal

    def on_body(self, body):
        self.unread = 0
        if self.cycle.response_complete:
            self._discard(body)
        super().on_body(body)

    def on_message_complete(self):
        if self.offers_upgrade:
            return
        self.unread, self.arriving = 0, False
        super().on_message_complete()

    def eof_received(self):
        if self.finished or self.arriving or self.cycle is None or self.cycle.response_complete:
            return None  # nobody waits for an answer
        if not self.half_closed:
            self.half_closed = True
            self._wait(None)
            self.deadline = self.loop.call_later(HALF_CLOSED_S, self.abort)
        return True

    # ------------------------------------------------------------------------------------------------ what goes out

    def _start_asgi_task(self, cycle, app):
        self.running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self):
        more = bool(self.pipeline)
        super().on_response_complete()
        if more or self.finished:
            return
        if self.half_closed:
            self.finish()
        elif not self.arriving:
            self._is_idle(self.shared.kept)

    def pause_writing(self):
        """The client does not read: it may stall for as long as it may take to send."""
        super().pause_writing()
        self._watch_reading(None)

    def _watch_reading(self, before):
        waiting = self.socket.get_write_buffer_size()
        if before is not None and waiting >= before:
            self.abort()
        else:
            self.stalled = self.loop.call_later(self.seconds, self._watch_reading, waiting)

    def resume_writing(self):
        if self.stalled is not None:
            self.stalled.cancel()
            self.stalled = None
        super().resume_writing()

    def timeout_keep_alive_handler(self):
        if self.socket.get_write_buffer_size():
            self.abort()  # to close it properly, the client would have to read
        else:
            super().timeout_keep_alive_handler()


def _head_too_large(settings):
    return ApiError(
        431,
        "head_too_large",
        f"the request's head is too large: at most {settings.max_headers:,} headers and "
        f"{settings.max_header_bytes:,} bytes",
    )
