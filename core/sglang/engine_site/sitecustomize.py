"""Start-up of every Python process of an engine: this folder is first on the engine's PYTHONPATH, and only there.

Python imports `sitecustomize` before anything else, in the server's main process and in each process it spawns, so this
is the one place that reaches them all. Two switches, both environment variables set by `core.sglang.launch`:

EBBTIDE_DIE_WITH_PARENT=1  the kernel kills the process (SIGKILL) when its parent dies: nothing outlives a killed server.
EBBTIDE_CPU_ENGINE=1       stand-ins for what SGLang imports but a machine without a GPU does not have (`ebbtide_cpu_engine`).

Afterwards the next `sitecustomize` on the path runs, as it would have without us.

Standard library only, and cheap: it runs before the program's first line.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the parent dies.

    The kernel means the *thread* that created this process: start an engine from a thread that lives as long as it does.
    The setting survives exec but not fork, hence the hook.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)

    def arm() -> None:
        parent = os.getppid()
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died in between
            os.kill(os.getpid(), signal.SIGKILL)

    arm()
    os.register_at_fork(after_in_child=arm)


def run_next_sitecustomize() -> None:
    """Execute the `sitecustomize` that this one hides, if there is one."""
    here = os.path.dirname(os.path.abspath(__file__))
    others = [entry for entry in sys.path if os.path.abspath(entry) != here]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(module_from_spec(spec))


if os.environ.get("EBBTIDE_DIE_WITH_PARENT") == "1":
    die_with_parent()
if os.environ.get("EBBTIDE_CPU_ENGINE") == "1":
    import ebbtide_cpu_engine

    ebbtide_cpu_engine.install()
run_next_sitecustomize()
