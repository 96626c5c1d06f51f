"""Exit codes of the command line."""

from __future__ import annotations

FAILED = 1  # the world did not do what was asked; mistakes in the input are 2
INTERRUPTED = 130  # by Ctrl-C or SIGTERM: 128 + SIGINT, as shells have it
