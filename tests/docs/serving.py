"""A page's server, in the background while the rest of the page runs, and what the page asks it."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

USUAL = "http://127.0.0.1:8000"
"""where the page says that the server answers"""


@contextmanager
def serving(text: str) -> Iterator[str]:
    """A line that begins with "piip serve" and asks for port 0, in a process of its own; its address."""
    words = shlex.split(text, comments=True)
    process = subprocess.Popen(
        [sys.executable, "-m", *words], stdout=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "500"}
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split("answers at ")[1].split()[0]
        process.terminate()
        process.wait(120)
    finally:
        process.kill()
        process.wait()


def run_curl(text: str, address: str) -> str:
    """What a line that begins with "curl" prints; an answer that is an error fails."""
    words = shlex.split(text.replace(USUAL, address), comments=True)
    return subprocess.run(
        [words[0], "--fail", "--silent", "--show-error", *words[1:]], check=True, capture_output=True, text=True
    ).stdout


def look_at_answers(address: str, printed: list[str]) -> None:
    """The first request gave JSON; the page's other addresses answer."""
    assert isinstance(json.loads(printed[0]), dict)
    for place in ("/", "/model", "/health", "/ready", "/metrics", "/openapi.json"):
        assert httpx.get(address + place, timeout=300).status_code == 200, place
