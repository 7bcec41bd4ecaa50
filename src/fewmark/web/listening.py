"""The socket of a server of this package, before the server starts: who asks at once is not refused."""

from __future__ import annotations

import socket

from fewmark.core.errors import InputError


def listen(host: str, port: int) -> tuple[socket.socket, str]:
    """A socket of this address, and the page's address.

    Raises:
        InputError: The address is taken, or is none of this machine.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)  # who reads the address may come at once
    except OSError as error:
        raise InputError(f"{host}:{port}: cannot be listened on ({error.strerror}); give another --port") from error
    return listener, f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}/"
