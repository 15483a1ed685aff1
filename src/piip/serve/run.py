"""`serve`: from weights to a server that answers, until it is told to stop."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from piip.prediction.options import Precision
from piip.serve.limits import Limits
from piip.serve.source import ModelSource

MISSING = 'serving needs some more packages: pip install "piip[serve]"'


def serve(
    weights: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int = 1,
    limits: Limits | None = None,
    token: str | None = None,
    device: str | int | None = None,
    precision: Precision = "fp32",
    grace: float = 30.0,
    listening: Callable[[str], object] = lambda address: None,
) -> None:
    """Answer images over HTTP, and show a page at `/`, until SIGTERM or Ctrl-C.

    Args:
        weights: a run folder, a `.safetensors` file or a saved model folder.
        host: the address to listen at; others than this machine's own need a `token`.
        port: 0: any that is free.
        workers: processes that hold a copy of the model each; on CPUs they share the cores.
        limits: of requests and of what waits.
        token: that requests must bring, as `Authorization: Bearer TOKEN`.
        device: of the model; None: a GPU if there is one.
        precision: "fp32", "bf16" or "fp16".
        grace: seconds that requests have to be finished when the server is told to stop.
        listening: called with the address when the server takes requests.

    Raises:
        ValueError: weights that are none; an open address without a token; no such device.
        OSError: the port is taken.
        ImportError: the packages of `piip[serve]` are missing.
    """
    uvicorn = _uvicorn()
    from piip.serve.app import application
    from piip.serve.engine import Engine
    from piip.serve.guard import HERE, Guard, is_here

    if not is_here(host) and not token:
        raise ValueError(f"{host} can be reached from other machines: give a token that requests must bring "
                         "(--token, or the environment's PIIP_TOKEN), or listen at 127.0.0.1")  # fmt: skip
    limits = limits or Limits()
    with _bound(host, port) as bound:
        name = None if device is None else str(device)
        engine = Engine(ModelSource(weights, name, precision, limits.batch, workers), limits, workers)
        engine.start()
        app = application(engine, Guard(token, HERE if is_here(host) and not token else None))
        settings = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, proxy_headers=False, lifespan="on",
            timeout_graceful_shutdown=max(1, round(grace)),
        )  # fmt: skip
        shown = f"[{host}]" if ":" in host else host
        listening(f"http://{shown}:{bound.getsockname()[1]}")
        try:
            uvicorn.Server(settings).run(sockets=[bound])
        finally:
            engine.close()


def _uvicorn():  # type: ignore[no-untyped-def] # a module
    try:
        import fastapi
        import multipart  # noqa: F401 # of python-multipart
        import prometheus_client  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise ImportError(MISSING) from error
    del fastapi
    return uvicorn


def _bound(host: str, port: int) -> socket.socket:
    """Taken before the model is loaded, so that a wrong port is said at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise OSError(f"port {port} of {host}: {error.strerror}; choose another with --port") from error
    return found
