"""What the command line of every process of a node begins with; the node agent writes it."""

from __future__ import annotations

import argparse
from pathlib import Path


def role_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """A parser that knows run directory, attempt, node and host; the role adds its own."""
    parser = argparse.ArgumentParser(prog=module, description=description)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--node", type=int, required=True)
    parser.add_argument("--host", required=True, help="address under which the other nodes reach this one")
    return parser
