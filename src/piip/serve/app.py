"""The routes of a server: an image in, what a model finds in it out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Annotated, Any, Literal

import anyio
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from piip.serve.batching import Failed, Unavailable
from piip.serve.engine import Engine
from piip.serve.guard import HEADERS, Guard
from piip.serve.uploads import image_bytes
from piip.serve.wanted import Answer, Format, Wanted
from piip.serve.worker import CallFailed, WorkerDied, WorkerNotReady, WorkerTooSlow
from piip.version import __version__

PAGE = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/view.js": ("view.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
RETRY_AFTER = "1"
"""seconds, for those that find the queue full"""
Score = Annotated[float, Field(ge=0, le=1)]
CONF = "Lowest score of an object; auto: of each class that of its best F1, where the weights hold it"
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}}
            },
        },
    }
}


def application(engine: Engine, guard: Guard) -> FastAPI:
    """The server of a started engine, as ASGI; the engine is closed when it stops."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(engine.close)

    app = FastAPI(title="piip", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)

    @app.middleware("http")
    async def guarded(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        try:
            guard.check_host(request)
        except HTTPException as error:
            return JSONResponse({"detail": error.detail}, error.status_code, HEADERS)
        response = await go_on(request)
        response.headers.update(HEADERS)
        return response

    _add_facts(app, engine, guard)
    _add_page(app)
    _add_predict(app, engine, guard)
    return app


def _add_facts(app: FastAPI, engine: Engine, guard: Guard) -> None:
    @app.get("/health", summary="Whether the server answers at all")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready", summary="Whether the model is loaded and takes images")
    async def ready() -> dict[str, str]:
        if not engine.ready:
            raise HTTPException(503, "the model is being loaded", {"Retry-After": RETRY_AFTER})
        return {"status": "ready"}

    @app.get("/model", summary="Task, classes and limits", dependencies=[Depends(guard.check_token)])
    async def model() -> dict[str, Any]:
        limits = {"bytes": engine.limits.bytes, "pixels": engine.limits.pixels, "seconds": engine.limits.seconds}
        return engine.facts | {"limits": limits}

    @app.get("/metrics", summary="Counters for Prometheus", dependencies=[Depends(guard.check_token)])
    async def metrics() -> Response:
        return Response(engine.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_page(app: FastAPI) -> None:
    folder = files("piip.serve") / "page"
    for path, (name, media_type) in PAGE.items():
        content = (folder / name).read_bytes()

        def page(content: bytes = content, media_type: str = media_type) -> Response:
            return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})

        app.get(path, include_in_schema=False)(_without_parameters(page))


def _without_parameters(page: Callable[[], Response]) -> Callable[[], Awaitable[Response]]:
    """A route of that page: defaults of a function would be parameters of the query to FastAPI."""

    async def route() -> Response:
        return page()

    return route


def _add_predict(app: FastAPI, engine: Engine, guard: Guard) -> None:
    under_way = Admission(engine.limits.queue)
    engine.metrics.watch("piip_under_way", "Requests that are read, wait or are worked on.", lambda: under_way.count)

    @app.post(
        "/predict",
        summary="What the model finds in an image",
        description="The image as the body, or as the file of a form: JPEG, PNG, WebP, BMP, TIFF or GIF.",
        dependencies=[Depends(guard.check_token)],
        openapi_extra=BODY,
        response_class=Response,
        responses={
            200: {"content": {"application/json": {}, "image/png": {}, "image/jpeg": {}}},
            400: {"description": "The request cannot be right for this model"},
            413: {"description": "Too many bytes"},
            422: {"description": "No image, a broken or too large one, or a parameter of the wrong kind"},
            429: {"description": "Too many requests at once; Retry-After says when to try again"},
            503: {"description": "No process to take it; Retry-After says when to try again"},
            504: {"description": "Took too long"},
        },
    )
    async def predict(
        request: Request,
        format: Annotated[Format, Query(description="What comes back")] = "json",
        conf: Annotated[Score | Literal["auto"], Query(description=CONF)] = 0.25,
        classes: Annotated[str | None, Query(description="Names of the classes that count, with commas")] = None,
        mask: Annotated[
            bool,
            Query(description="Segmentation: `mask_png`, label = red + 256 green of a PNG in base64"),
        ] = False,
    ) -> Response:
        began = time.monotonic()
        status = 500
        try:
            with under_way:
                wanted = wanted_of(engine.facts, format, conf, classes, mask)
                answer = await _answered(engine, request, wanted)
            status = 200
            return Response(answer.body, media_type=answer.media_type)
        except HTTPException as error:
            status = error.status_code
            raise
        finally:
            engine.metrics.request(status, time.monotonic() - began)


class Admission:
    """Lets at most `most` requests in at a time: what is not let in takes no memory."""

    def __init__(self, most: int) -> None:
        self.count, self._most = 0, most

    def __enter__(self) -> None:
        if self.count >= self._most:
            raise HTTPException(429, f"{self.count} requests are under way already", {"Retry-After": RETRY_AFTER})
        self.count += 1

    def __exit__(self, *error: object) -> None:
        self.count -= 1


def wanted_of(
    facts: dict[str, Any], format: Format, conf: float | Literal["auto"], classes: str | None, mask: bool
) -> Wanted:
    """A request's parameters; HTTPException 400 for what this model does not have."""
    if format not in facts["formats"]:
        raise HTTPException(400, f"no {format} of a model for {facts['task']}; use {', '.join(facts['formats'])}")
    labels = None
    if classes:
        names = [name.strip() for name in classes.split(",")]
        if unknown := [name for name in names if name not in facts["classes"]]:
            raise HTTPException(400, f"no class is called {', '.join(unknown)}; see /model")
        labels = tuple(facts["classes"].index(name) for name in names)
    if conf != "auto" or facts["task"] != "detection":
        return Wanted(format, 0.25 if conf == "auto" else conf, None, labels, mask)
    if facts["thresholds"] is None:
        raise HTTPException(400, "conf=auto: these weights hold no thresholds; give a number")
    return Wanted(format, min(facts["thresholds"]), tuple(facts["thresholds"]), labels, mask)


async def _answered(engine: Engine, request: Request, wanted: Wanted) -> Answer:
    seconds = engine.limits.seconds
    try:
        with anyio.fail_after(seconds):
            upload = await image_bytes(request, engine.limits.bytes)
            return await engine.answer(upload, wanted)
    except CallFailed as error:
        raise HTTPException(422, str(error)) from None
    except WorkerDied as error:
        raise HTTPException(422, f"{error}: this image cannot be decoded here") from None
    except (TimeoutError, WorkerTooSlow):
        raise HTTPException(504, f"not done within {seconds:g} seconds", {"Retry-After": RETRY_AFTER}) from None
    except (Unavailable, WorkerNotReady) as error:
        raise HTTPException(503, str(error), {"Retry-After": RETRY_AFTER}) from None
    except Failed as error:
        raise HTTPException(500, f"the model could not answer: {error}") from None
