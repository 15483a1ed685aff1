"""`piip serve`: a model that answers over HTTP, and a page to try it."""

from __future__ import annotations

from typing import Annotated

import typer

from piip.cli.options import Device, OfficialModel, Precision, Weights, out, weights_path
from piip.console import say


def serve(
    weights: Weights,
    host: Annotated[str, typer.Option(help="Address; others than this machine's need a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.")] = 8000,
    workers: Annotated[int, typer.Option(help="Processes with a copy of the model each.")] = 1,
    max_batch: Annotated[int, typer.Option(help="Images per forward pass at most; those that wait go together.")] = 8,
    batch_wait: Annotated[float, typer.Option(help="Milliseconds that an image waits for others to go with.")] = 0.0,
    queue: Annotated[int, typer.Option(help="Requests at a time; one more is answered with status 429.")] = 32,
    max_bytes: Annotated[int, typer.Option(help="Bytes of an upload at most.")] = 20_000_000,
    max_pixels: Annotated[int, typer.Option(help="Width x height of an image at most.")] = 50_000_000,
    timeout: Annotated[float, typer.Option(help="Seconds for a request.")] = 60.0,
    grace: Annotated[float, typer.Option(help="Seconds to finish requests when told to stop.")] = 30.0,
    token: Annotated[
        str | None,
        typer.Option(envvar="PIIP_TOKEN", show_envvar=True, help="To be brought as Authorization: Bearer TOKEN."),
    ] = None,
    device: Device = None,
    precision: Precision = "fp32",
    model_name: OfficialModel = None,
) -> None:
    """Answer images over HTTP, with a page at / to try the model in a browser; stop with Ctrl-C.

    POST an image to /predict: `curl --data-binary @photo.jpg 'http://127.0.0.1:8000/predict?conf=0.5'`. See
    docs/serve.md.
    """
    from piip.serve.limits import Limits
    from piip.serve.run import serve as run

    def listening(address: str) -> None:
        say(out, f"{weights} answers at {address} (a page; POST {address}/predict; /openapi.json); Ctrl-C ends it")

    run(
        weights_path(weights, model_name),
        host=host,
        port=port,
        workers=workers,
        limits=Limits(max_bytes, max_pixels, timeout, queue, max_batch, batch_wait / 1000),
        token=token,
        device=device,
        precision=precision,  # type: ignore[arg-type]
        grace=grace,
        listening=listening,
    )
