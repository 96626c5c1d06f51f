"""SGLang's processes of an engine whose ranks compute attention in groups (`enable_dp_attention`; 0.5.16 and 0.5.21).

For such an engine SGLang gives its processes TCP ports of 127.0.0.1 to talk over, which any user of the machine may
write to, and has the process that hands out requests ask for the next one without a pause. Here they talk over sockets
in the engine's own folder, as those of other engines do, and that process waits.

No plugin: SGLang loads these in other processes than that one. `sitecustomize` calls `install` with
EBBTIDE_ATTENTION_GROUPS=1 (`core.sglang.launch`). Standard library only.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

SETTINGS, CONTROLLER = "sglang.srt.server_args", "sglang.srt.managers.data_parallel_controller"
WAIT_MS = 1000
PREFIX = "tcp://127.0.0.1:"
NAMES = ("tokenizer_ipc_name", "detokenizer_ipc_name", "rpc_ipc_name", "metrics_ipc_name")
USED = "nccl_port"  # the others may be another engine's, as they follow from the server's
REQUESTS = "scheduler_input_ipc_name"  # in the controller of each group: a port that it has, and only writes to


def install() -> None:
    """Change both modules as they are imported."""
    sys.meta_path.insert(0, _After({SETTINGS: talk_in_the_folder, CONTROLLER: wait_for_requests}))


def talk_in_the_folder(settings: Any) -> None:
    """Let a socket in the engine's folder take the place of each port; the same in all of its processes."""
    make, wait = settings.PortArgs.init_new, settings.wait_port_available

    def wait_for_used(port: int, name: str, *rest: Any, **named: Any) -> Any:
        return wait(port, name, *rest, **named) if name == USED else True

    def init_new(server_args: Any, dp_rank: int | None = None, worker_ports: list[int] | None = None) -> Any:
        ports = make(server_args, dp_rank, worker_ports)
        for name in (*NAMES, *([REQUESTS] if dp_rank is None else [])):
            setattr(ports, name, in_the_folder(getattr(ports, name)))
        return ports

    settings.PortArgs.init_new = staticmethod(init_new)
    settings.wait_port_available = wait_for_used


def in_the_folder(address: str) -> str:
    """The socket for a port of this machine; other addresses are left alone."""
    if not address.startswith(PREFIX):
        return address
    return f"ipc://{tempfile.gettempdir()}/group-port-{address.removeprefix(PREFIX)}"


def wait_for_requests(module: ModuleType) -> None:
    """Let the controller wait for the next request wherever it tells SGLang's watchdog that it is alive."""
    loop = module.DataParallelController.event_loop

    def event_loop(controller: Any) -> None:
        feed = controller.soft_watchdog.feed

        def feed_and_wait() -> None:
            feed()
            controller.recv_from_tokenizer.poll(WAIT_MS)

        controller.soft_watchdog.feed = feed_and_wait
        loop(controller)

    module.DataParallelController.event_loop = event_loop


class _After(MetaPathFinder):
    """Has modules changed once they have been executed."""

    def __init__(self, changes: dict[str, Callable[[ModuleType], None]]) -> None:
        self._changes = changes

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        change = self._changes.get(fullname)
        spec = PathFinder.find_spec(fullname, path, target) if change else None
        if change is None or spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_change(module: ModuleType) -> None:
            execute(module)
            change(module)

        spec.loader.exec_module = execute_and_change  # type: ignore[method-assign]
        return spec
