"""`python -m ebbtide_engine_server ARGS…`: SGLang's server with the API key from the environment.

On a command line every user of the machine could read it.
"""

from __future__ import annotations

import os
import runpy
import sys


def main() -> None:
    """Hand over to sglang.launch_server."""
    key = os.environ.get("EBBTIDE_ENGINE_API_KEY")
    if key:
        sys.argv.append(f"--api-key={key}")  # one word: a key may begin with a dash
    runpy.run_module("sglang.launch_server", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
