"""A port that one process holds and another of the same user serves, as often as that one is restarted.

The holder binds with no option, so it gets a port that nobody has, and sets SO_REUSEPORT afterwards: from then on the
kernel gives the port to sockets of the same user that have the option too, and to no other. SO_REUSEADDR would admit
every user: while a server starts or is restarted, another user's could listen in its place, and be told the run's key.
Standard library only: an engine imports it first.
"""

from __future__ import annotations

import socket


def hold(holder: socket.socket) -> None:
    """Let this user's servers have the port of a socket that is bound and never listens."""
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def lend(holder: socket.socket) -> None:
    """Let any server that reuses addresses have the port of a socket that is bound and never listens.

    For a server that is not ours, such as torch's store: whoever lets the system choose a port does not get this one.
    """
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def take(host: str, port: int) -> socket.socket:
    """A socket that will listen on a port which is held.

    Raises:
        OSError: a server listens on it, or it is held by another user, or for other options.
    """
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the server before may linger
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        server.bind((host, port))
    except OSError:
        server.close()
        raise
    return server
