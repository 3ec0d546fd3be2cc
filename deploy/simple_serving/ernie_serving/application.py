"""The HTTP application of one model: PaddleNLP's route, health, metrics; and how a server is started and stopped."""

import argparse
import asyncio
import contextlib
import functools
import hmac
import json
import logging
import os
import signal
import sys
import threading
import time
import uuid

import anyio
import uvicorn
from ernie_predictor import PredictorError
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from . import openapi, protocol_v2
from .errors import ApiError, bad_request, too_large, wrong_field
from .metrics import Metrics
from .service import Service
from .settings import Settings

logger = logging.getLogger("ernie_serving")
OPEN_ROUTES = {"/health", "/metrics"}  # need no API_KEY


class Server:
    """What an application holds: the model once it is open, and whether it may be asked.

    Attributes:
        service: the `Service`, None until it is open.
        failure: why it could not be opened.
        draining: whether it is about to stop, and `/ready` says so, while requests are still taken.
        stopping: whether the server takes no more requests.
    """

    def __init__(self, name, settings):
        self.name, self.settings, self.metrics = name, settings, Metrics()
        self.service = self.failure = None
        self.draining = self.stopping = False
        self.on_failure = lambda: None

    def open(self):
        """Opens the model and runs it once, in a thread; a folder that cannot be used ends the server."""
        try:
            service = Service(self.name, self.settings, self.metrics)
            service.warm_up()
        except Exception as e:
            # A missing package, or a model that fails at its first texts, too: it would never be ready.
            self.failure = str(e) or type(e).__name__
            logger.error("%s", self.failure, exc_info=not isinstance(e, PredictorError))
            self.on_failure()
            return
        self.metrics.watch(self.name, service.batcher)
        self.service = service
        logger.info("%s: %s is ready (%s)", self.name, self.settings.model_path, service.model.backend)

    def ready(self):
        """The service, if it may be asked.

        Raises:
            ApiError: 503, while it starts or stops, or where it is broken.
        """
        if self.stopping:
            raise ApiError(503, "unavailable", "the server is stopping", 5)
        if self.failure:
            raise ApiError(503, "unavailable", "the model could not be opened; the server's log says why", 60)
        if self.service is None:
            raise ApiError(503, "unavailable", "the model is being opened", 2)
        if not self.service.batcher.is_alive():
            raise ApiError(503, "unavailable", "the model stopped; the server's log says why", 60)
        return self.service


def create_app(name, route, read_data, write_result, default_model, settings=None):
    """The application of one model.

    Args:
        name: of the model, in metrics and logs.
        route: where it is asked.
        read_data: a function of the request's `data` that returns the items as the predictor takes them; raises
            ApiError.
        write_result: a function of (service, items, answers) that returns the `result`.
        default_model: the folder where MODEL_PATH is not set.
        settings: left out, those of the environment.
    """
    settings = settings or Settings()
    if settings.model_path is None:
        settings = settings.model_copy(update={"model_path": default_model})
    server = Server(name, settings)

    @contextlib.asynccontextmanager
    async def lifespan(app):
        opening = asyncio.get_running_loop().run_in_executor(None, server.open)
        yield
        server.stopping = True
        await opening
        if server.service is not None:
            await asyncio.get_running_loop().run_in_executor(None, server.service.close, settings.shutdown_s)

    app = FastAPI(title=name, lifespan=lifespan)
    app.state.server = server
    app.openapi = functools.partial(openapi.describe, app, [(name, route, openapi.TASKS[name])], settings)

    @app.middleware("http")
    async def around(request: Request, call_next):
        begin = request.state.begin = time.perf_counter()
        request_id = _safe_id(request.headers.get("x-request-id"))
        server.metrics.in_flight.inc()
        try:
            try:
                _check_key(settings, request)
                response = await call_next(request)
            except ApiError as e:
                response = _error(server, e)
            except Exception:
                logger.exception("request %s failed", request_id)
                response = _error(server, ApiError(500, "internal", "the server failed; its log says why"))
        finally:
            server.metrics.in_flight.dec()
        seconds = time.perf_counter() - begin
        known = request.scope.get("route")
        server.metrics.requests.labels(getattr(known, "path", "other"), str(response.status_code)).inc()
        response.headers["x-request-id"] = request_id
        response.headers["x-total-time"] = f"{1000 * seconds:.2f}"
        _log(settings, request, response, request_id, seconds)
        return response

    @app.exception_handler(ApiError)
    async def api_error(request, error):
        return _error(server, error)

    @app.exception_handler(404)
    async def not_found(request, error):
        return _error(server, ApiError(404, "not_found", f"no such route; the model answers at {route}"))

    @app.exception_handler(405)
    async def not_allowed(request, error):
        response = _error(server, ApiError(405, "not_allowed", f"{request.method:.20} is not allowed here"))
        response.headers.update(error.headers or {})  # Allow
        return response

    async def answer(request, service, items, parameters=None):
        """Answers of a request's items; a client that goes away ends it."""
        if not items:
            raise bad_request("there are no texts")
        found = await while_connected(request, service.answer(items, parameters))
        server.metrics.answered(name, found, time.perf_counter() - request.state.begin)
        return found

    @app.post(route)
    async def predict(request: Request):
        service = server.ready()
        body = load_json(await read_bytes(request, settings.max_body_bytes, settings.timeout_s))
        if not isinstance(body, dict) or not isinstance(body.get("data"), dict):
            raise wrong_field('expected {"data": {...}, "parameters": {...}}')
        if unknown := [key for key in body if key not in ("data", "parameters")]:
            raise wrong_field(f"unknown field {unknown[0]!r:.60}; expected data and parameters")
        if not isinstance(body.get("parameters"), (dict, type(None))):
            raise wrong_field("`parameters` is no object")
        items = read_data(body["data"])
        found = await answer(request, service, items, body.get("parameters"))
        return JSONResponse({"result": write_result(service, items, found.answers)}, headers=times_of(found))

    @app.get("/v2/health/live")
    async def live():
        return {"live": True}

    @app.get("/v2/health/ready")
    async def v2_ready():
        return {"ready": (await ready())["status"] == "ready"}

    @app.get("/v2")
    async def v2_server():
        return {"name": "ernie_serving", "version": "1", "extensions": ["binary_tensor_data"]}

    @app.get("/v2/models/{model}")
    async def v2_model(model: str):
        check_name(model)
        return protocol_v2.metadata(name, server.ready().task.name)

    @app.get("/v2/models/{model}/ready")
    async def v2_model_ready(model: str):
        check_name(model)
        await ready()
        return {"name": name, "ready": True}

    @app.post("/v2/models/{model}/infer")
    async def infer(model: str, request: Request):
        check_name(model)
        service = server.ready()
        content = await read_bytes(request, settings.max_body_bytes, settings.timeout_s)
        body, binary = protocol_v2.read_request(content, request.headers.get(protocol_v2.HEADER), load_json)
        items = protocol_v2.read_items(body, binary, service.task.name)
        found = await answer(request, service, items)
        content, headers = protocol_v2.write_response(name, body, service.task.name, found.answers)
        return Response(content, headers={**headers, **times_of(found)})

    def check_name(model):
        if model != name:
            raise protocol_v2.unknown_model(model)

    @app.get("/health")
    async def health():
        """Alive: also when the queue is full."""
        if server.failure or (server.service is not None and not server.service.batcher.is_alive()):
            raise ApiError(503, "unavailable", "the model stopped or could not be opened; the server's log says why")
        return {"status": "alive"}

    @app.get("/ready")
    async def ready():
        if server.draining:
            raise ApiError(503, "unavailable", "the server is stopping", 5)
        server.ready()
        return {"status": "ready"}

    @app.get("/info")
    async def info():
        service = server.ready()
        return {
            "model": name,
            "task": service.task.name,
            "route": route,
            "labels": list(service.task.id2label.values()),
            "engine": service.model.backend,
            "precision": service.precision_mode,
            "threads": service.threads,
            "max_seq_length": service.task.max_seq_length,
            **settings.model_dump(include={"max_batch_tokens", "max_batch_size", "max_queue_tokens", "max_texts",
                                           "max_characters", "max_body_bytes", "timeout_s"}),
        }  # fmt: skip

    @app.get("/metrics")
    async def metrics():
        return Response(server.metrics.text(), media_type=server.metrics.content_type)

    return app


def times_of(found):
    """Where a request's time went, in milliseconds, as headers."""
    return {
        "x-queue-time": f"{1000 * found.queue_seconds:.2f}",
        "x-tokenization-time": f"{1000 * found.tokenize_seconds:.2f}",
        "x-inference-time": f"{1000 * found.model_seconds:.2f}",
        "x-compute-tokens": str(found.tokens),
    }


async def read_bytes(request, limit, seconds):
    """A request's body.

    Raises:
        ApiError: 408 or 413; or 499, which nobody reads.
    """
    content = bytearray()
    try:
        with anyio.fail_after(seconds):
            async for chunk in request.stream():
                content += chunk
                if len(content) > limit:
                    raise too_large("bytes of the request", limit, len(content))
    except TimeoutError:
        raise ApiError(408, "timeout", f"the body did not arrive within {seconds:g} s") from None
    except ClientDisconnect:
        raise ApiError(499, "client_gone", "the client went away") from None
    return bytes(content)


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


async def while_connected(request, answering):
    """Awaits a coroutine, and cancels it when the client goes away: what has not run yet leaves the queue."""
    answer, gone = asyncio.ensure_future(answering), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ApiError(499, "client_gone", "the client went away")
        return answer.result()
    finally:
        answer.cancel()
        gone.cancel()


async def _gone(request):
    """Waits until the client goes away. `request.is_disconnected()` never says so behind a middleware of Starlette."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _no_constant(name):
    raise ValueError(f"{name} is not JSON")


def _check_key(settings, request):
    if settings.api_key is None or request.url.path in OPEN_ROUTES:
        return
    sent = request.headers.get("authorization", "")
    if not hmac.compare_digest(sent.encode(), f"Bearer {settings.api_key}".encode()):
        raise ApiError(401, "unauthorized", "expected the header Authorization: Bearer <API_KEY>")


def _safe_id(given):
    """A client's request id, if it is harmless in a header and a log, else a new one."""
    if given and len(given) <= 128 and given.isascii() and given.isprintable():
        return given
    return uuid.uuid4().hex


def _error(server, error):
    server.metrics.failures.labels(error.kind).inc()
    headers = {"retry-after": str(error.retry_after)} if error.retry_after else {}
    return JSONResponse(error.body(), error.status, headers)


def _log(settings, request, response, request_id, seconds):
    fields = {
        "method": request.method,
        "path": request.url.path,
        "status": response.status_code,
        "ms": round(1000 * seconds, 1),
        "request_id": request_id,
    }
    if settings.log_json:
        logger.info("%s", json.dumps(fields, ensure_ascii=True))
    else:
        logger.info("%s", " ".join(f"{key}={value!s:.200}" for key, value in fields.items()))


def main(make_app, about):
    """Starts a server from the command line: `python server_seq_cls.py --model_path DIR --port 8189`.

    Args:
        make_app: a function of `Settings` that returns the application.
        about: what --help says first.
    """
    settings = read_flags(about)
    logging.basicConfig(level=logging.INFO, format="%(message)s" if settings.log_json else "%(asctime)s %(message)s")
    app = make_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=int(settings.shutdown_s),
    )
    server = _Uvicorn(config)
    app.state.server.on_failure = lambda: setattr(server, "should_exit", True)
    # uvicorn stops in good order, and then raises the signal once more; having been asked to stop is no failure.
    signal.signal(signal.SIGTERM, lambda *arguments: None)
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    if app.state.server.failure:
        print(f"{os.path.basename(sys.argv[0])}: error: {app.state.server.failure}", file=sys.stderr)
        sys.exit(1)


class _Uvicorn(uvicorn.Server):
    """Told to stop, it first says so at /ready for a moment, so that whoever sends it requests goes elsewhere."""

    def handle_exit(self, sig, frame):
        server = self.config.app.state.server
        if server.draining or sig == signal.SIGINT:
            super().handle_exit(sig, frame)
            return
        server.draining = True
        threading.Timer(server.settings.drain_s, lambda: super(_Uvicorn, self).handle_exit(sig, frame)).start()


def read_flags(about, argv=None):
    """`Settings`: flags over environment variables over defaults."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f" (default: {field.default})"
        parser.add_argument(f"--{name}", help=f"{field.description}{default}; {name.upper()} in the environment")
    given = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as e:
        name, found = e.errors()[0]["loc"][0], e.errors()[0]
        parser.error(f"--{name} {found['input']}: {found['msg']}")
