"""`python -m tests.slurm_cluster …`: see the package's docstring."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import tests.slurm_cluster as package
from tests.slurm_cluster import Cluster, Settings, why_not
from tests.slurm_cluster.install import install


def main() -> None:
    """One command."""
    options = parse()
    match options.command:
        case "install":
            install()
        case "start":
            start(options)
        case "stop":
            current().stop()
        case "kill-node":
            current().kill_node(options.node, down=options.down)
        case "start-node":
            current().start_node(options.node)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.slurm_cluster",
        description=package.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install", help="apt packages, as root; nothing where they are there")
    begin = commands.add_parser("start", help="print `export SLURM_CONF=…` when all nodes are idle")
    begin.add_argument("--nodes", type=int, default=3)
    begin.add_argument("--cpus", type=int, default=8, help="per node, as Slurm is told")
    begin.add_argument("--gpus", type=int, default=0, help="per node, fake")
    begin.add_argument("--no-accounting", action="store_true", help="no slurmdbd: sacct does not work")
    begin.add_argument("--no-het", action="store_true", help="no backfill scheduler: heterogeneous jobs are refused")
    begin.add_argument("--requeue-delay", default="4", help="seconds that a requeued job waits; none: Slurm's 120")
    begin.add_argument("--owner", type=int, default=0, help="stop when this process is gone")
    begin.add_argument("--lifetime", type=float, default=7200.0, help="stop after this many seconds")
    commands.add_parser("stop", help="end everything and remove the cluster's folder")
    kill = commands.add_parser("kill-node", help="kill every process of a node")
    kill.add_argument("node")
    kill.add_argument("--down", action="store_true", help="tell Slurm at once")
    commands.add_parser("start-node", help="boot a killed node").add_argument("node")
    return parser.parse_args()


def start(options: argparse.Namespace) -> None:
    if (reason := why_not(not options.no_accounting)) is not None:
        raise SystemExit(reason)
    wanted = Settings(
        folder="",
        num_nodes=options.nodes,
        cpus=options.cpus,
        gpus=options.gpus,
        accounting=not options.no_accounting,
        heterogeneous=not options.no_het,
        requeue_delay_s=None if options.requeue_delay == "none" else float(options.requeue_delay),
    )
    print(f"export SLURM_CONF={Cluster.start(wanted, options.owner, options.lifetime).conf}")


def current() -> Cluster:
    conf = os.environ.get("SLURM_CONF")
    if not conf or not (Path(conf).parent / "settings.json").exists():
        raise SystemExit(f"found no test cluster (SLURM_CONF={conf}): start one, export SLURM_CONF as it says")
    return Cluster(Path(conf).parent)


if __name__ == "__main__":
    main()
