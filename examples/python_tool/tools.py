"""What the model may call: Python, in a sandbox."""

from __future__ import annotations

import asyncio

from ebbtide import Sandbox

SANDBOX = Sandbox(timeout_s=3, memory_bytes=256 << 20, output_bytes=2000)
MOST_CHARACTERS = 300  # of an error: its last lines say what it is


async def python(code: str) -> str:
    """Run a Python program, and give what it prints.

    Args:
        code: the program
    """
    ran = await asyncio.to_thread(SANDBOX.run, code)  # other episodes go on meanwhile
    if ran.stopped:
        return f"error: the program was stopped, it had no more {ran.stopped}"
    if not ran.ok:
        return f"error: {ran.stderr[-MOST_CHARACTERS:].strip() or f'exit code {ran.exit_code}'}"
    return ran.stdout.strip() or "(it printed nothing)"
