"""Whether the Hugging Face Hub can be reached, found out in a moment where its client would try for a minute."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

SECONDS = 5
"""to wait for a connection"""


@contextmanager
def hub_at_once() -> Iterator[str | None]:
    """Within it, where the Hub cannot be reached, its client looks into its cache alone and does not try for a minute.

    Gives the reason why it cannot be reached, or None where it can. For one thread at a time.
    """
    from huggingface_hub import constants

    why = unreachable()
    before = constants.HF_HUB_OFFLINE
    if why is not None:
        constants.HF_HUB_OFFLINE = True  # the client reads it at each request; the environment only when it is imported
    try:
        yield why
    finally:
        constants.HF_HUB_OFFLINE = before


def unreachable() -> str | None:
    """Why the Hub cannot be reached, in words; None where something answers at its address, or at the proxy's."""
    from huggingface_hub import is_offline_mode

    if is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    hub = urlsplit(endpoint())
    proxy = getproxies().get(hub.scheme)
    through = hub if proxy is None or proxy_bypass(hub.hostname or "") else urlsplit(proxy)
    try:
        socket.create_connection((through.hostname or "", through.port or _usual_port(through.scheme)), SECONDS).close()
    except OSError as error:
        return f"{through.hostname} cannot be reached: {error.strerror or error}"
    return None


def endpoint() -> str:
    """The Hub's address, as `$HF_ENDPOINT` or the client has it."""
    from huggingface_hub import constants

    return os.environ.get("HF_ENDPOINT") or constants.ENDPOINT


def _usual_port(scheme: str) -> int:
    return 80 if scheme == "http" else 443
