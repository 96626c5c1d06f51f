"""`python -m ebbtide_engine_server ARGS…`: SGLang's server with the API key from the environment, on a held port.

On a command line every user of the machine could read the key. SGLang names host and port to uvicorn, whose socket a
port that the agent holds (`core/processes/held_port.py`) would not admit: uvicorn gets the socket instead.
"""

from __future__ import annotations

import gc
import os
import runpy
import socket
import sys
import tempfile
from importlib import import_module
from typing import Any

import uvicorn

from core.processes.held_port import take

GARBAGE = 50_000  # new objects before Python looks for circles; at the usual 700 an eighth of the imports' time is that


def main() -> None:
    """Hand over to sglang.launch_server."""
    key = os.environ.get("EBBTIDE_ENGINE_API_KEY")
    if key:
        sys.argv.append(f"--api-key={key}")  # one word: a key may begin with a dash
    gc.set_threshold(GARBAGE)
    if os.environ.get("EBBTIDE_CPU_ENGINE") == "1":
        import_module("ebbtide_cpu_engine").leave_uncompiled()
    serve_on_held_port()
    name_after_the_folder()
    runpy.run_module("sglang.launch_server", run_name="__main__", alter_sys=True)


def serve_on_held_port() -> None:
    """Let uvicorn, where it would bind a socket itself, listen on one that may have the held port."""
    serve = uvicorn.Server.serve

    async def serve_there(server: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
        await serve(server, sockets or [take(server.config.host, server.config.port)])

    uvicorn.Server.serve = serve_there  # type: ignore[assignment, method-assign]


def name_after_the_folder() -> None:
    """Let what the server's processes share be named after their temporary folder, so that it is known whose it is.

    SGLang names it by chance: nobody could tell after a kill. Versions that have no such name are left alone.
    """
    from sglang.srt.server_args import PortArgs

    make, folder = PortArgs.init_new, os.path.basename(tempfile.gettempdir())

    def init_new(*arguments: Any, **named: Any) -> Any:
        ports = make(*arguments, **named)
        if found := getattr(ports, "instance_id", ""):
            ports.instance_id = f"{folder}-{found}"
        return ports

    PortArgs.init_new = staticmethod(init_new)


if __name__ == "__main__":
    main()
