"""The server as one application: paths, documentation, checks before them, and errors."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from charloom.errors import CharloomError
from charloom.server import schemas
from charloom.server.bodies import Body
from charloom.server.completions import CompletionRequest
from charloom.server.errors import ApiError, api_error, error_response
from charloom.server.guard import Access, Guard
from charloom.server.limits import ServerLimits
from charloom.server.memory import Memory, Sharing
from charloom.server.metrics import Metrics
from charloom.server.page_routes import STATIC, PageRoutes
from charloom.server.routes import Routes, as_json
from charloom.server.served_models import ServedModels
from charloom.server.training import Training
from charloom.server.training_routes import TrainingRoutes

log = logging.getLogger("charloom.server")

ERRORS = {
    400: "The request is wrong.",
    401: "The key is missing or wrong.",
    403: "The Host or Origin header is not allowed.",
    404: "There is no such model.",
    408: "The request did not arrive in time.",
    409: "A model cannot be loaded now.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "The model has no token to choose.",
    429: "The queue or the memory is full. The header Retry-After says when to try again.",
    503: "The server is loading or stopping.",
}
POSTED = (400, 404, 408, 413, 415, 429, 503)
"""Errors of every route that takes a body."""


def create_app(
    models: ServedModels, metrics: Metrics, limits: ServerLimits, access: Access, training: Training | None = None
) -> FastAPI:
    """The ASGI application. The caller loads the models. With `training`, clients can train."""
    memory = Memory(limits.memory_bytes)
    metrics.watch_memory(lambda: memory.used)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, middleware=_middleware(access, metrics, memory))
    app.mount("/static", FreshFiles(directory=STATIC), name="static")
    _handle_errors(app, metrics)
    routes = Routes(models, metrics, limits)

    async def document() -> Response:
        return as_json(openapi(app))

    _get(app, "/openapi.json", document, None)
    _get(app, "/health", routes.health, schemas.Health, errors={503: {"model": schemas.Health}})
    app.add_api_route("/health", routes.health, methods=["HEAD"], include_in_schema=False)  # for load balancers
    _get(app, "/metrics", routes.metrics, None, content={"text/plain": {}})
    _get(app, "/v1/models", routes.list_models, schemas.ModelList, errors=_errors(503))
    _get(app, "/v1/models/{name:path}", routes.get_model, schemas.ModelCard, errors=_errors(404, 503))
    stream: dict[str, Any] = {"text/event-stream": {}}
    _post(app, "/v1/completions", routes.completions, CompletionRequest, schemas.Completion, (422,), stream)
    _post(app, "/tokenize", routes.tokenize, schemas.Tokenize, schemas.Tokens)
    _post(app, "/detokenize", routes.detokenize, schemas.Detokenize, schemas.Text)
    _post(app, "/v1/trace", routes.trace, schemas.TraceRequest, schemas.Traced)
    _post(app, "/admin/reload", routes.reload, schemas.Reload, schemas.Reloaded, (409,))
    _add_page(app, PageRoutes(models, limits, training.folder.path if training else None))
    if training is not None:
        TrainingRoutes(training, limits).add(app)
    app.add_api_route("/v1/chat/completions", routes.chat, methods=["GET", "POST"], include_in_schema=False)
    return app


class FreshFiles(StaticFiles):
    """Files that a browser asks for again each time, so that a page never meets a script of another version."""

    def file_response(self, *arguments: Any, **named: Any) -> Response:
        """The file."""
        response = super().file_response(*arguments, **named)
        response.headers["cache-control"] = "no-cache"
        return response


def _add_page(app: FastAPI, page: PageRoutes) -> None:
    """Adds the page and its own routes. They may change with the page, so the document leaves them out."""
    app.add_api_route("/", page.page, methods=["GET", "HEAD"], include_in_schema=False)
    for path, function, method in (
        ("/app/state", page.state, "GET"),
        ("/app/models/{name:path}/compressors", page.compressors, "GET"),
        ("/app/models/{name:path}/download", page.download, "GET"),
        ("/app/models/{name:path}", page.model, "GET"),
        ("/app/look", page.look, "POST"),
        ("/app/unit", page.unit, "POST"),
    ):
        app.add_api_route(path, function, methods=[method], include_in_schema=False)


def _get(
    app: FastAPI,
    path: str,
    function: Callable[..., Any],
    answer: type[Any] | None,
    *,
    errors: dict[int | str, dict[str, Any]] | None = None,
    content: dict[str, Any] | None = None,
) -> None:
    """Adds a route to read. Without an answer or content to document, the document leaves it out."""
    responses = {200: {"model": answer} if answer else {"content": content}, **(errors or _errors())}
    app.add_api_route(
        path,
        function,
        methods=["GET"],
        responses=responses,
        response_class=Response,
        include_in_schema=bool(answer or content),
    )


def _post(
    app: FastAPI,
    path: str,
    function: Callable[..., Any],
    takes: type[Body],
    answer: type[Any],
    further: tuple[int, ...] = (),
    content: dict[str, Any] | None = None,
) -> None:
    """Adds a route that reads a body itself. `openapi` adds the schema of the body."""
    schema = {"$ref": f"#/components/schemas/{takes.__name__}"}
    app.add_api_route(
        path,
        function,
        methods=["POST"],
        responses={200: {"model": answer, "content": content or {}}, **_errors(*POSTED, *further)},
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}},
    )


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route, for the document."""
    return {status: {"model": schemas.Error, "description": ERRORS[status]} for status in (401, 403, *statuses)}


def _middleware(access: Access, metrics: Metrics, memory: Memory) -> list[Middleware]:
    inner = [Middleware(Guard, access, metrics.refuse), Middleware(Sharing, memory)]
    if not access.origins:
        return inner
    cors = Middleware(
        CORSMiddleware,
        allow_origins=[*access.origins],
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type"],
    )
    return [cors, *inner]


def _handle_errors(app: FastAPI, metrics: Metrics) -> None:
    """Turns every exception into an error of the protocol, and counts it."""

    async def refused(request: Request, error: Exception) -> Response:
        known = _of_route(request, error) if isinstance(error, HTTPException) else api_error(error)
        if known.status == 500 and known is not error:
            log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        metrics.refuse(known.status, getattr(request.state, "model", ""))
        return error_response(known)

    for kind in (HTTPException, ApiError, CharloomError, Exception):
        app.add_exception_handler(kind, refused)


def _of_route(request: Request, error: HTTPException) -> ApiError:
    if error.status_code == 404:
        return ApiError(404, f"there is no {request.url.path} here; /openapi.json lists what there is", "not_found")
    if error.status_code == 405:
        return ApiError(
            405, f"{request.url.path} does not answer {request.method}; /openapi.json lists what it answers"
        )
    return ApiError(error.status_code, str(error.detail))


def openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the schemas of the bodies that the routes read themselves."""
    if app.openapi_schema is None:
        document = get_openapi(title="charloom", version=version("charloom"), routes=app.routes)
        place = "#/components/schemas/{model}"
        for kind in (CompletionRequest, schemas.Tokenize, schemas.Detokenize, schemas.TraceRequest, schemas.Reload):
            schema = kind.model_json_schema(ref_template=place)
            document["components"]["schemas"] |= schema.pop("$defs", {}) | {kind.__name__: schema}
        app.openapi_schema = document
    return app.openapi_schema
