"""Whole runs over two Slurm nodes of one machine, each with a GPU of its own: the parts of `two_nodes.py`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from bench.layout_runs import (  # noqa: E402
    AS_RUN,
    DEADLINE_S,
    DENSE,
    TORCHRUN,
    LayoutOfTwo,
    Steps,
    ends_of,
    environment,
    replay_file,
    run_file,
    variant_of,
)
from tests.slurm_cluster import Cluster, Settings, wait_until  # noqa: E402
from tests.support.slurm_runs import attempts, hold, hold_phases, times_entered  # noqa: E402
from tests.support.tiny_models import EXPERTS  # noqa: E402
from tests.support.tiny_runs import events  # noqa: E402

STATE_SHARED = {"use_distributed_optimizer": True}
BOTH_NODES = {"num_nodes": 2}
SILENCE_S = {"cuda": 20, "cpu": 10}  # until a node that says nothing is given up
GPUS = (0, 1, 1)  # of the nodes: the third is the spare one of the second
NETWORK_ONLY = {  # NCCL may not notice that the nodes are one machine
    **{"NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1", "NCCL_IB_DISABLE": "1", "NCCL_NET": "Socket"},
    **{"NCCL_NVLS_ENABLE": "0", "NCCL_MNNVL_ENABLE": "0", "NCCL_DEBUG": "INFO"},
}
VIA = re.compile(r"Channel .* via (\w+(?:/[A-Za-z]\w*)?)")
OF_TWO = re.compile(r" nranks 2 .*busId (\w+)")


@dataclass(frozen=True)
class Case:
    """What the run file says, and the phase in which the second node dies."""

    placement: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    kind: str = DENSE
    components: Sequence[Mapping[str, Any]] = ()
    killed: str | None = None

    @property
    def num_nodes(self) -> int:
        """Nodes of the cluster: a spare one where one dies."""
        return 3 if self.killed else 2

    @property
    def over_nodes(self) -> bool:
        """Whether its trainer ranks, on both nodes, are to learn from the samples again."""
        return self.placement.get("num_nodes") == 2 and self.killed is None


CASES = {
    "dp2": Case(BOTH_NODES, STATE_SHARED),
    "engines": Case(components=({"role": "trainers"}, {"role": "engines"})),
    "experts-ep2": Case({**BOTH_NODES, "expert_parallel": 2}, STATE_SHARED, EXPERTS),
    "engine-over-nodes": Case({**BOTH_NODES, "engine_tensor_parallel": 2, "engine_nodes": 2}, STATE_SHARED),
    "killed-update": Case(BOTH_NODES, STATE_SHARED, killed="update step=1"),
    "killed-rollout": Case(BOTH_NODES, STATE_SHARED, killed="rollout step=1"),
}


class NodeRun:
    """One of them, on a cluster of its own."""

    def __init__(self, name: str, folder: Path, device: str) -> None:
        self.name, self.case, self.device = name, CASES[name], device
        self.folder = folder / name
        self.run_dir, self.log, self.nccl = self.folder / "out", self.folder / "log", self.folder / "nccl"
        self.file = run_file(self.folder, LayoutOfTwo(self.case.placement, self.case.train, self.case.kind), device)
        self.nccl.mkdir()
        self._for_slurm()
        self.deadline_s = DEADLINE_S[device] * (1.5 if self.case.killed else 1)
        self.rc: int | None = None
        self.sent_mib = 0.0

    def go(self) -> dict[str, Any]:
        """Start the cluster, run, learn from the samples again; what came of it."""
        gpus = GPUS[: self.case.num_nodes] if self.device == "cuda" else ()
        wanted = Settings(folder="", num_nodes=self.case.num_nodes, accounting=False, real_gpus=gpus)
        self.cluster = Cluster.start(wanted, owner=os.getpid(), lifetime_s=3 * self.deadline_s)
        try:
            self._run()
            again = self._learn_again()
            self.sent_mib = sent_bytes(self.cluster.on_node("n1", "cat", "/proc/net/dev")) / 2**20
        finally:
            self.cluster.stop()
        return {**self.result(), "again": again}

    def _for_slurm(self) -> None:
        """Complete the run file with what is Slurm's, and write the site file."""
        config = yaml.safe_load(self.file.read_text())
        config["placement"]["silence_timeout_s"] = SILENCE_S[self.device]
        config["slurm"] = {"time": "15", "signal_s": 30}
        if self.case.components:
            config["slurm"]["components"] = [dict(component) for component in self.case.components]
        if self.case.killed:
            config["checkpoint"]["interval"] = 1
        self.file.write_text(yaml.safe_dump(config))
        if self.case.killed:
            hold_phases(self.file)
            hold(self.file, self.case.killed)
        site = {"shared_filesystems": [str(self.folder.parent)]}
        if self.device == "cuda":
            site |= {"environment": self.network_only}
        (self.folder / "site.yaml").write_text(yaml.safe_dump(site))

    @property
    def network_only(self) -> dict[str, str]:
        """NCCL's settings; it tells what it does in a file of each process."""
        return {**NETWORK_ONLY, "NCCL_DEBUG_FILE": f"{self.nccl}/%h.%p"}

    @cached_property
    def env(self) -> dict[str, str]:
        """What commands against the cluster are given."""
        given = environment(LayoutOfTwo(), self.device) | self.cluster.environment
        return {key: value for key, value in given.items() if key != "CUDA_VISIBLE_DEVICES"}

    def _run(self) -> None:
        """`ebbtide submit` to its end; the second node dies when it is time."""
        words = ["submit", str(self.file), "--run-dir", str(self.run_dir), "--site", str(self.folder / "site.yaml")]
        self.began = time.time()
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "launchers", *words, "--wait"], stdout=log, stderr=log, env=self.env, cwd=ROOT
            )
        try:
            if self.case.killed:
                self._lose_second_node(process)
            self.rc = process.wait(self.began + self.deadline_s - time.time())
        except (subprocess.TimeoutExpired, TimeoutError) as error:
            print(f"{self.name}: {error}", flush=True)
            process.kill()
            process.wait()

    def _lose_second_node(self, process: subprocess.Popen[bytes]) -> None:
        """Kill it in the phase of the case; the first one goes on, into what it does with the second."""
        phase = str(self.case.killed)
        wait_until(lambda: times_entered(self.run_dir, phase) > 0 or process.poll() is not None, self.deadline_s, phase)
        if process.poll() is None:
            self.cluster.kill_node(attempts(self.run_dir)[0].nodes[1])
        hold(self.file, None)

    def _learn_again(self) -> dict[str, Steps | None]:
        """Steps of the run's samples: on one device, and where it matters in float32 and over both nodes."""
        if self.rc != 0:
            return {}
        alone = self._alone()
        one = [sys.executable, *TORCHRUN, "--standalone", "--nproc-per-node", "1"]
        env = environment(LayoutOfTwo(gpus="0"), self.device)
        again = {"alone": replay_file(alone, self.run_dir, one, env)}
        if self.case.over_nodes:
            variant = "float32" if self.device == "cuda" else AS_RUN
            exact = variant_of(alone, variant)
            again["exact"] = again["alone"] if exact == alone else replay_file(exact, self.run_dir, one, env)
            env = self.env | {"GLOO_SOCKET_IFNAME": "eth0", "NCCL_SOCKET_IFNAME": "eth0", **self.network_only}
            again["over_nodes"] = replay_file(variant_of(self.file, variant), self.run_dir, self._on_both_nodes(), env)
        return again

    def _alone(self) -> Path:
        """The run file of the same on one device."""
        config = yaml.safe_load(self.file.read_text())
        config.pop("slurm")
        config["placement"] |= {"num_nodes": 1, "expert_parallel": 1, "engine_tensor_parallel": 1, "engine_nodes": 1}
        alone = self.folder / "alone.yaml"
        alone.write_text(yaml.safe_dump(config))
        return alone

    def _on_both_nodes(self) -> list[str]:
        """The beginning of a command of which each node runs a rank."""
        gpus = ["--gres=gpu:1"] if self.device == "cuda" else []
        ranks = "--nnodes 2 --nproc-per-node 1 --node-rank $SLURM_NODEID --master-addr n1 --master-port 29511"
        script = f'exec "$0" {" ".join(TORCHRUN)} {ranks} "$@"'
        return ["srun", "-N2", "-n2", "-c4", "-t5", *gpus, "bash", "-c", script, sys.executable]

    def result(self) -> dict[str, Any]:
        """What came of the run."""
        steps = {event["step"]: event["metrics"] for event in events(self.run_dir, "step")}
        begin = next(iter(events(self.run_dir, "begin")), None)
        trainers = [path.read_text() for path in self.run_dir.glob("attempts/[0-9]*/trainer-*.log")]
        history = attempts(self.run_dir)
        return {
            "case": self.name,
            "rc": self.rc,
            "start_s": round(begin["time"] - self.began, 1) if begin else None,
            "whole_s": round(history[-1].ended - self.began, 1) if history and history[-1].ended else None,
            "attempts": [[a.how, list(a.nodes), list(a.failed_nodes)] for a in history],
            "warnings": [line for text in trainers for line in text.splitlines() if "state dict differs" in line],
            "losses": [steps[step]["train/loss"] for step in sorted(steps)],
            "grad_norms": [steps[step]["train/grad_norm"] for step in sorted(steps)],
            "logprob_gap": [steps[step]["train/train_rollout_logprob_abs_diff"] for step in sorted(steps)],
            "sync_s": [steps[step]["perf/update_weights_time"] for step in sorted(steps)],
            "sent_mib": round(self.sent_mib, 1),
            **links(path.read_text(errors="replace") for path in self.nccl.iterdir()),
        }

    def told(self) -> str:
        """The ends of its logs."""
        patterns = ("log", "out/slurm/**/*.log", "out/attempts/[0-9]*/*.log", "out/attempts/*/failure.json")
        return ends_of([path for p in (*patterns, "*.replay.log") for path in sorted(self.folder.glob(p))])


def links(texts: Iterable[str]) -> dict[str, Any]:
    """What NCCL says of itself: how often it connected by what, and the GPUs of its groups of two."""
    vias: Counter[str] = Counter()
    buses: set[str] = set()
    for text in texts:
        vias.update(VIA.findall(text))
        buses.update(OF_TWO.findall(text))
    return {"via": dict(vias), "gpus": sorted(buses)}


def sent_bytes(devices: str) -> int:
    """Bytes that eth0 has sent, from the text of /proc/net/dev."""
    numbers = next(line.partition(":")[2] for line in devices.splitlines() if line.strip().startswith("eth0:"))
    return int(numbers.split()[8])
