"""One engine of a node: started, published, restarted when it dies."""

from __future__ import annotations

import logging
import os
import signal
import socket
from contextlib import closing
from pathlib import Path

from core.config.schema import RunConfig
from core.device import num_threads, resolve_device, resolve_dtype
from core.engines import condemned_key, ready_key
from core.phase import phase_key
from core.pretrained import locate
from core.rendezvous import Member, Rendezvous
from core.sglang.launch import EngineSpec, command, environment
from launchers.children import Child, log_tail
from launchers.failure import Failure, describe_exit

log = logging.getLogger("agent")


def engine_name(node: int, index: int) -> str:
    """The name under which an engine is published."""
    return f"node{node}-engine{index}"


class EngineSlot:
    """The place of one engine; several incarnations may fill it one after the other."""

    def __init__(
        self, config: RunConfig, folder: Path, rendezvous: Rendezvous, node: int, index: int, host: str, api_key: str
    ) -> None:
        self._config = config
        self._folder = folder
        self._rendezvous = rendezvous
        self._node = node
        self._host = host
        self._api_key = api_key
        self._index = index
        self._incarnation = 0
        self.name = engine_name(node, index)
        self.child: Child | None = None

    def start(self) -> None:
        """Start the next incarnation and publish where it will answer."""
        spec = self._spec(free_port(self._host))
        env = environment(spec, os.environ)
        self.child = Child(self.name, command(spec), env, self._log_path())
        url = f"http://{spec.host}:{spec.port}"
        member = Member("engine", self.name, self._node, self._host, self.child.pid, url, (), self._incarnation)
        self._rendezvous.publish(member)
        log.info("engine=%s incarnation=%d pid=%d url=%s", self.name, self._incarnation, self.child.pid, url)

    def tend(self) -> Failure | None:
        """Restart the engine if it died; the failure if it died too often or never came up."""
        if self.child is None:
            return None
        if (exit_code := self.child.exit_code()) is None:
            if self._rendezvous.get(condemned_key(self.name)) == str(self._incarnation):
                self.child.signal(signal.SIGKILL)  # its driver got no answer: it hangs
            return None
        cause = describe_exit(exit_code)
        came_up = self._rendezvous.get(ready_key(self.name)) is not None
        if came_up and self._incarnation < self._config.placement.engine_restarts:
            log.warning("engine=%s pid=%d %s: restarting", self.name, self.child.pid, cause)
            self._incarnation += 1
            self.start()
            return None
        reason = f"after {self._incarnation} restarts" if came_up else "before it answered for the first time"
        path = self._log_path()
        phase = self._rendezvous.get(phase_key(0)) or "start"
        return Failure(
            *("engine", self.name, phase, f"{cause} {reason}", self.child.pid),
            exit_code=exit_code,
            detail=log_tail(path),
            log=str(path),
        )

    def _log_path(self) -> Path:
        return self._folder / f"{self.name}.{self._incarnation}.log"

    def _spec(self, port: int) -> EngineSpec:
        placement = self._config.placement
        device = resolve_device(placement.device)
        return EngineSpec(
            name=self.name,
            model_dir=locate(self._config.model.path),
            device=device,
            dtype=resolve_dtype(self._config.model.dtype, device),
            tensor_parallel=placement.engine_tensor_parallel,
            host=self._host,
            port=port,
            memory_fraction=placement.engine_memory_fraction,
            max_total_tokens=placement.engine_max_total_tokens,
            max_running_requests=placement.engine_max_running_requests,
            random_seed=self._config.rollout.seed,
            api_key=self._api_key,
            num_threads=num_threads(placement.engines_per_node),
            first_gpu=self._index * placement.engine_tensor_parallel,
        )


def free_port(host: str) -> int:
    """A port that is free now. The engine binds it seconds later; if it is taken by then, the engine is restarted."""
    with closing(socket.socket()) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])
