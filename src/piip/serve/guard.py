"""Who may ask: those with the token where there is one, and no other site's page."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from fastapi import HTTPException, Request

HERE = ("localhost", "127.0.0.1", "[::1]", "::1")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; media-src 'self' blob:; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""of every answer: the page loads nothing from elsewhere, and nobody frames it"""


def is_here(host: str) -> bool:
    """Whether a server bound to `host` can be reached from this machine alone."""
    if host in HERE:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Lets requests in.

    Args:
        token: that requests must bring as `Authorization: Bearer TOKEN`; None: none.
        hosts: names under which the server may be asked, None for any. Without a token, other sites could otherwise
            reach a server on this machine through a name that they make point to it.
    """

    def __init__(self, token: str | None, hosts: Sequence[str] | None) -> None:
        self._token, self._hosts = token, hosts

    def check_host(self, request: Request) -> None:
        """HTTPException 403 for a request under another name, or from another site's page."""
        host = request.headers.get("host", "")
        if self._hosts is not None and (_parts_of(f"//{host}").hostname or "") not in self._hosts:
            raise HTTPException(403, f"this server is not called {host}")
        origin = request.headers.get("origin")
        if origin is not None and _parts_of(origin).netloc != host:
            raise HTTPException(403, f"pages of {origin} may not ask here")

    def check_token(self, request: Request) -> None:
        """HTTPException 401 without the token."""
        if self._token is None:
            return
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            raise HTTPException(401, "wrong or no token", {"WWW-Authenticate": "Bearer"})


def _parts_of(address: str) -> SplitResult:
    """Empty ones of what is no address, such as "http://[::1"."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")
