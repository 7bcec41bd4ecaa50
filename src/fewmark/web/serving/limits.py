"""Limits on a request's body, before anything of it is read: its size, and how long its client may take."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

READ_S = 20.0
"""Longest wait for a client's next bytes."""


class _BrokenOff(Exception):  # noqa: N818 it is the client's error
    """The rest of the body is not read."""


class BodyLimits:
    """Answers 413 to a body that is too large, and 408 to a client that stops sending.

    Args:
        app: What answers the others.
        max_bytes: Largest body.
        read_s: See `READ_S`.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, read_s: float = READ_S) -> None:
        self.app, self.max_bytes, self.read_s = app, max_bytes, read_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        stated = dict(scope["headers"]).get(b"content-length", b"")
        if stated.isdigit() and int(stated) > self.max_bytes:
            await self._refuse(413, scope, receive, send)
            return
        n_read, whole, status = 0, False, 0

        async def limited() -> Message:
            nonlocal n_read, whole, status
            if whole:  # what follows is the end of the connection, which may take long
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), self.read_s)
            except TimeoutError:
                status = 408
                raise _BrokenOff from None
            n_read += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if n_read > self.max_bytes:
                status = 413
                raise _BrokenOff
            return message

        async def sent(message: Message) -> None:
            if not status:  # else the application says what it made of the exception
                await send(message)

        with suppress(_BrokenOff):
            await self.app(scope, limited, sent)
        if status:
            await self._refuse(status, scope, receive, send)

    async def _refuse(self, status: int, scope: Scope, receive: Receive, send: Send) -> None:
        text = f"expected at most {self.max_bytes} bytes" if status == 413 else f"no bytes for {self.read_s:g} s"
        answer = JSONResponse({"detail": text}, status, headers={"Connection": "close"})
        await answer(scope, receive, send)
