"""The HTTP application: PaddleNLP's routes, the Open Inference Protocol, health, information and metrics."""

import asyncio
import contextlib
import functools
import sys
import time

from ernie_predictor import UsageError
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from . import openapi, protocol_v2
from .bodies import LARGE, Bodies, load_json, while_connected
from .connections import Connections
from .errors import ApiError, bad_request, wrong_field
from .host import Host
from .middleware import Watch, error_response
from .page import PAGE, PAGE_HEADERS
from .process import configure_logging, drain_first, fail_to_start, flush_log, limit_arenas, stop_with_parent
from .settings import load_settings

MANY = 8  # texts whose answers are written off the event loop


def create_app(routes, settings=None):
    """The application of one or several models.

    Args:
        routes: a list of `Route`: input and output of each task's models.
        settings: None: those of the environment; a wrong value ends the process with a message.
    """
    try:
        settings = settings or load_settings()
        host = Host(routes, settings)
    except UsageError as e:
        raise SystemExit(f"error: {e}") from None

    @contextlib.asynccontextmanager
    async def lifespan(app):
        configure_logging(settings)
        limit_arenas()
        # Python's threads hand over after 1 ms, not 5: the event loop waits for those that tokenize.
        sys.setswitchinterval(0.001)
        drain_first(host)
        remove_orphaned = stop_with_parent()
        loop = asyncio.get_running_loop()

        async def open_models():
            if not await loop.run_in_executor(None, host.open):
                fail_to_start(host)

        opening = asyncio.ensure_future(open_models())
        if settings.open_first:
            await opening
        yield {"connections": Connections(settings, host.metrics)}
        host.stopping = True
        await opening
        await loop.run_in_executor(None, host.close)
        remove_orphaned()
        flush_log()

    app = FastAPI(title="ERNIE 3.0", lifespan=lifespan)
    app.state.host = host
    app.openapi = functools.partial(openapi.describe, app, host.models.values(), settings)
    app.add_middleware(Watch, host=host)

    @app.exception_handler(ApiError)
    async def api_error(request, error):
        return error_response(host, error)

    @app.exception_handler(404)
    async def not_found(request, error):
        paths = ", ".join(model.path for model in host.models.values())
        return error_response(host, ApiError(404, "not_found", f"no such route; models are asked at {paths}"))

    @app.exception_handler(405)
    async def not_allowed(request, error):
        response = error_response(host, ApiError(405, "not_allowed", f"{request.method:.20} is not allowed here"))
        response.headers.update(error.headers or {})  # Allow
        return response

    bodies = Bodies(settings.max_body_bytes, settings.timeout_s)
    # Each text may be a list of tokens, or lie in a tensor of four dimensions.
    load = functools.partial(load_json, most=4 * settings.max_texts + 1000)

    async def off_loop(large, service, function, *arguments):
        """Calls a function; for large bodies and answers in a thread, meanwhile other requests are answered."""
        if not large:
            return function(*arguments)
        return await asyncio.get_running_loop().run_in_executor(service.workers, function, *arguments)

    async def read_body(request, service, read):
        """What a function reads from a request's body; the body itself is needed no longer, and takes no memory."""
        content = await bodies.read(request)
        return await off_loop(len(content) > LARGE, service, read, content)

    async def answer(request, service, items, parameters):
        """Answers to a request's items; a client that goes away ends it."""
        if not items:
            raise bad_request("there are no texts")
        found = await while_connected(request, service.answer(items, parameters), settings.timeout_s)
        host.metrics.answered(service.name, found, time.perf_counter() - request.state.begin)
        return found

    def add_route(model):
        @app.post(model.path, name=model.name)
        async def predict(request: Request):
            service = host.ready(model.name)

            def read(content):
                data, parameters = read_request(load(content))
                return model.route.read_data(data), parameters

            items, parameters = await read_body(request, service, read)
            found = await answer(request, service, items, parameters)

            def write():
                body = {"result": model.route.write_result(service.task, items, found.answers)}
                if found.warnings:
                    body["warnings"] = found.warnings
                return JSONResponse(body, headers=headers_of(found))

            return await off_loop(len(items) > MANY, service, write)

    for model in host.models.values():
        add_route(model)

    @app.get("/", include_in_schema=False)
    async def page():
        return HTMLResponse(PAGE, headers=PAGE_HEADERS)

    @app.get("/v2")
    async def v2_server():
        return {"name": "ernie_serving", "version": "1", "extensions": ["binary_tensor_data"]}

    @app.get("/v2/health/live")
    async def v2_live():
        return {"live": True}

    @app.get("/v2/health/ready")
    async def v2_ready():
        host.all_ready()
        return {"ready": True}

    # The protocol's routes have a version, too: every model has one, "1".
    version = "/v2/models/{name}/versions/1"

    @app.get(version, include_in_schema=False)
    @app.get("/v2/models/{name}")
    async def v2_model(name: str):
        return protocol_v2.metadata(name, host.model(name).route.task)

    @app.get(f"{version}/ready", include_in_schema=False)
    @app.get("/v2/models/{name}/ready")
    async def v2_model_ready(name: str):
        host.ready(name)
        return {"name": name, "ready": True}

    @app.post(f"{version}/infer", include_in_schema=False)
    @app.post("/v2/models/{name}/infer")
    async def infer(name: str, request: Request):
        service = host.ready(name)
        task = host.model(name).route.task

        def read(content):
            body, binary = protocol_v2.read_request(content, request.headers.get(protocol_v2.HEADER), load)
            items = protocol_v2.read_items(body, binary, task)
            return body, items, protocol_v2.read_outputs(body, task)

        body, items, outputs = await read_body(request, service, read)
        found = await answer(request, service, items, protocol_v2.read_parameters(body))
        content, headers = await off_loop(
            len(items) > MANY, service, protocol_v2.write_response, service, body, outputs, found.answers
        )
        return Response(content, headers={**headers, **headers_of(found)})

    @app.get("/health")
    async def health():
        """Alive: also while models are opened, and when a queue is full."""
        if "broken" in map(host.state, host.models):
            raise ApiError(503, "unavailable", "a model is broken; the server's log says why")
        return {"status": "alive"}

    @app.get("/ready")
    async def ready():
        """Whether all models may be asked."""
        host.all_ready()
        return {"status": "ready"}

    @app.get("/info")
    async def info():
        """Models, their labels, engines and states; limits of requests."""
        return host.info()

    @app.get("/metrics")
    async def metrics():
        return Response(host.metrics.text(), media_type=host.metrics.content_type)

    return app


def read_request(body):
    """(data, parameters) of a request's JSON.

    Raises:
        ApiError: 422.
    """
    if not isinstance(body, dict) or not isinstance(body.get("data"), dict):
        raise wrong_field('expected {"data": {...}, "parameters": {...}}')
    if unknown := [key for key in body if key not in ("data", "parameters")]:
        raise wrong_field(f"unknown field {unknown[0]!r:.60}; expected data and parameters")
    parameters = body.get("parameters")
    if not isinstance(parameters, (dict, type(None))):
        raise wrong_field("`parameters` is no object")
    return body["data"], parameters


def headers_of(found):
    """Where a request's time went, in milliseconds; its tokens, and how many of its texts were truncated."""
    return {
        "x-queue-time": f"{1000 * found.queue_seconds:.2f}",
        "x-tokenization-time": f"{1000 * found.tokenize_seconds:.2f}",
        "x-inference-time": f"{1000 * found.model_seconds:.2f}",
        "x-compute-tokens": str(found.tokens),
        "x-truncated-texts": str(found.truncated),
    }
