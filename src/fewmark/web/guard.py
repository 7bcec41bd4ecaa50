"""Who may talk to the page: this machine, or whoever has the token; and no other page that this browser has open."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Collection
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names of this machine, from which no token is asked."""
COOKIE = "fewmark_token"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""Of every answer: nothing is loaded from elsewhere, and the page is in no frame."""
MOST_BYTES = 8_000_000
"""Largest body of a request."""

Next = Callable[[Request], Awaitable[Response]]


class Guard:
    """Refuses requests that do not come from the page itself.

    Args:
        hosts: Names under which the page may be asked for, without port.
        token: What a person has to know, or None on this machine alone.
    """

    def __init__(self, hosts: Collection[str], token: str | None) -> None:
        self.hosts, self.token = frozenset(hosts), token

    async def __call__(self, request: Request, proceed: Next) -> Response:
        """Answer a request, or say why not."""
        refused = self._refuse(request)
        if refused is not None:
            answer: Response = refused
        elif self.token is not None and request.query_params.get("token") == self.token:
            answer = RedirectResponse(request.url.path, status_code=303)
            answer.set_cookie(COOKIE, self.token, httponly=True, samesite="strict")
        else:
            answer = await proceed(request)
        for name, value in HEADERS.items():
            answer.headers.setdefault(name, value)
        return answer

    def _refuse(self, request: Request) -> Response | None:
        host = _name(request.headers.get("host", ""))
        if host not in self.hosts:
            return _no(421, f"this page is asked for as {host!r}; expected {', '.join(sorted(self.hosts))}")
        if request.method not in ("GET", "HEAD"):
            origin = request.headers.get("origin")
            if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
                return _no(403, f"a request of another page, {origin}, is refused")
            if not request.headers.get("content-type", "").startswith("application/json"):
                return _no(415, "expected a body of application/json")
            length = request.headers.get("content-length", "")
            if not length.isdigit():  # a body in chunks, of unknown length
                return _no(411, "expected a body of known length")
            if int(length) > MOST_BYTES:
                return _no(413, f"expected a body of at most {MOST_BYTES} bytes")
        if self.token is not None and not self._knows_token(request):
            return _no(401, "open the address with ?token=... that the command has printed")
        return None

    def _knows_token(self, request: Request) -> bool:
        assert self.token is not None
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        given = (request.cookies.get(COOKIE, ""), request.query_params.get("token", ""), bearer)
        return any(hmac.compare_digest(g.encode(), self.token.encode()) for g in given)


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    return (urlsplit(f"//{host}").hostname or "").lower()


def _no(status: int, why: str) -> Response:
    return JSONResponse({"detail": why}, status_code=status)
