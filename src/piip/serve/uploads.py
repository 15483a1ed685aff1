"""The image of a request, whatever way it was sent, and no byte more than is allowed."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser


async def image_bytes(request: Request, most: int) -> bytes:
    """The body, or of a form its one file.

    Raises HTTPException: 413 for more than `most` bytes, 400 for a form without exactly one file, or nothing at all.
    """
    _refuse_length(request, most)
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        return await _file_of_form(request, most)
    body = bytearray()
    async for chunk in _bounded(request, most):
        body += chunk
    if not body:
        raise HTTPException(400, "no image: send its bytes as the body, or as the file of a form")
    return bytes(body)


async def _file_of_form(request: Request, most: int) -> bytes:
    try:
        form = await MultiPartParser(request.headers, _bounded(request, most), max_files=1, max_fields=10).parse()
    except (MultiPartException, KeyError) as error:
        raise HTTPException(400, f"a form that cannot be read: {error}") from None
    try:
        files = [value for value in form.values() if isinstance(value, UploadFile)]
        if len(files) != 1:
            raise HTTPException(400, f"a form with {len(files)} files; send one image")
        return await files[0].read()
    finally:
        await form.close()


def _refuse_length(request: Request, most: int) -> None:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise _too_many(most)


async def _bounded(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    """The body's pieces, up to `most` bytes: a header may be wrong or missing."""
    read = 0
    async for chunk in request.stream():
        read += len(chunk)
        if read > most:
            raise _too_many(most)
        yield chunk


def _too_many(most: int) -> HTTPException:
    return HTTPException(413, f"more than {most} bytes, which is what this server takes")
