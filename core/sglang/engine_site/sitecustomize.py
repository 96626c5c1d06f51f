"""Start-up of every Python process of an engine: this folder is first on the engine's PYTHONPATH, and only there.

Python imports `sitecustomize` before anything else, in the server's main process and in each process it spawns, so this
is the one place that reaches them all. What it does is set by `core.sglang.launch` through the environment:

EBBTIDE_DIE_WITH_PARENT=1  the kernel kills the process when its parent dies: nothing outlives a killed server.
EBBTIDE_HIDE_MODULES=a,b   these packages look as if they were not installed. SGLang imports Megatron where it finds it.
EBBTIDE_ENGINE_API_KEY=…   is blotted out of log lines: SGLang logs all of its settings.
EBBTIDE_ATTENTION_GROUPS=1 the engine's processes talk in its own folder (`ebbtide_group_processes`).
EBBTIDE_CPU_ENGINE=1       what a machine without a GPU needs (`ebbtide_cpu_engine`).

Every process writes the stacks of its threads to its log on SIGUSR1: an engine that hangs is asked for them.

Afterwards the next `sitecustomize` on the path runs, as it would have without us.

Standard library only, and cheap: it runs before the program's first line.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from typing import Any

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the parent dies.

    The kernel means the *thread* that created this process: start an engine from a thread that lives as long.
    The setting survives exec but not fork, hence the hook.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)

    def arm(parent: int) -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the setting was made
            os.kill(os.getpid(), signal.SIGKILL)

    arm(os.getppid())
    forking = [0]
    os.register_at_fork(
        before=lambda: forking.__setitem__(0, os.getpid()),
        after_in_child=lambda: arm(forking[0]),
    )


def hide_modules(names: str) -> None:
    """Let `import name` and `find_spec(name)` say: not installed."""
    for name in filter(None, names.split(",")):
        sys.modules[name] = None  # type: ignore[assignment]


def keep_out_of_logs(secret: str) -> None:
    """Replace `secret` in the text of every log record."""
    import logging

    make_record = logging.getLogRecordFactory()

    def blotted(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        if isinstance(record.msg, str):
            record.msg = record.msg.replace(secret, "***")
        return record

    logging.setLogRecordFactory(blotted)


def run_next_sitecustomize() -> None:
    """Execute the `sitecustomize` that this one hides, if there is one."""
    here = os.path.dirname(os.path.abspath(__file__))
    others = [entry for entry in sys.path if os.path.abspath(entry) != here]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(module_from_spec(spec))


if os.environ.get("EBBTIDE_DIE_WITH_PARENT") == "1":
    die_with_parent()
faulthandler.register(signal.SIGUSR1)
hide_modules(os.environ.get("EBBTIDE_HIDE_MODULES", ""))
if os.environ.get("EBBTIDE_ENGINE_API_KEY"):
    keep_out_of_logs(os.environ["EBBTIDE_ENGINE_API_KEY"])
if os.environ.get("EBBTIDE_ATTENTION_GROUPS") == "1":
    import_module("ebbtide_group_processes").install()
if os.environ.get("EBBTIDE_CPU_ENGINE") == "1":
    import_module("ebbtide_cpu_engine").install()
run_next_sitecustomize()
