"""The sandbox's own program: `python -I -S start.py ROOT WAY`, started by `core.sandbox.ways`. Standard library only.

Reads lines of JSON from its standard input: what is alike for all programs, and then, when `ready` is answered, a
program at a time; answers each with a line when it has ended. When its input closes, everything within ends. What goes
wrong before the first program is said on its standard error.

    ROOT  the folder that has `core`
    WAY   `namespaces`: it makes them itself; `within`: it has been started in some, as process 1
"""

import json
import os
import sys
from contextlib import suppress

sys.path.insert(0, sys.argv[1])

from core.sandbox import init, kernel, namespaces


def main() -> int:
    """Run what is asked for."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # when memory runs out, this and its children are the first to go
    settings = json.loads(_line() or b"null")
    if settings is None:
        return 0

    def work(has_proc: bool, mounts: bool = True) -> None:
        init.watch_children()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while line := _line():
            ended = init.run_one(
                json.loads(line), settings["limits"], has_proc, settings["visible"] if mounts else None
            )
            sys.stdout.write(json.dumps(ended) + "\n")
            sys.stdout.flush()

    if sys.argv[2] == "within":
        with namespaces.exit_after():
            kernel.prctl(kernel.SET_DUMPABLE, 0)
            work(os.path.exists("/proc/1/statm"), mounts=False)
    return abs(namespaces.run_as_init(settings["visible"], settings["hidden"], work))


def _line() -> bytes:
    """The next line of the owner, who sends none before the last is answered; empty: there is no owner any more."""
    line = b""
    while not line.endswith(b"\n"):
        data = os.read(init.OWNER, 1 << 20)
        if not data:
            return b""
        line += data
    return line


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as error:
        sys.exit(error.strerror)
