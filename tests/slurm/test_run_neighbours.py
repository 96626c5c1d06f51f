"""Runs of several people on the same nodes at the same time: they do not collide, and nobody gets into another's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.slurm.slurm_runs import (
    attempts,
    ended,
    hold,
    hold_phases,
    losses,
    prepare,
    submit,
    tell,
    wait_for,
    wait_for_phase,
)
from tests.slurm_cluster import Cluster, ClusterError

pytestmark = [pytest.mark.slurm, pytest.mark.run, pytest.mark.slow]

NOBODY = "65534"
ASK = "exec 3<>/dev/tcp/{host}/{port}; printf '{request}' >&3; timeout 5 head -c 200 <&3"
GENERATE = (
    "POST /generate HTTP/1.1\\r\\nHost: x\\r\\nContent-Type: application/json\\r\\nContent-Length: 24\\r\\n"
    'Connection: close\\r\\n\\r\\n{"input_ids": [5, 6, 7]}'
)


def as_stranger(cluster: Cluster, node: str, script: str) -> str:
    """Output of a bash script of another user on a node."""
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return cluster.on_node(node, *user, "bash", "-c", script)


def test_two_runs_on_the_same_nodes_and_a_stranger_beside_them(cluster: Cluster, tmp_path: Path) -> None:
    """Both runs use both nodes; another user of a node can neither drive an engine, nor find or read a key."""
    runs = [tmp_path / name for name in ("first", "second")]
    files = [prepare(folder, num_nodes=2) for folder in runs]
    for run_file in files:
        hold_phases(run_file)
        hold(run_file, "rollout step=1")
        only_two = ["--set", "slurm.exclude=[n3, n4]"]
        submit(run_file, run_file.parent / "out", *only_two)
    for folder in runs:
        wait_for_phase(folder / "out", "rollout step=1")
        assert attempts(folder / "out")[0].nodes == ("n1", "n2")
    urls = [engine_url(folder / "out", node) for folder in runs for node in (0, 1)]
    assert len(set(urls)) == 4
    refuse_the_stranger(cluster, runs[0] / "out", urls[1])
    for run_file in files:
        hold(run_file, None)
    for folder in runs:
        wait_for(lambda out=folder / "out": ended(out), 180, folder / "out")  # type: ignore[misc]
    assert losses(runs[0] / "out") == losses(runs[1] / "out"), tell(runs[1] / "out")


def refuse_the_stranger(cluster: Cluster, run_dir: Path, url: str) -> None:
    key_file = run_dir / "attempts" / "1" / "key"
    key = key_file.read_text()
    with pytest.raises(ClusterError, match="Permission denied"):
        as_stranger(cluster, "n2", f"cat '{key_file}'")
    for node in ("n1", "n2"):
        assert key not in as_stranger(cluster, node, "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '; true")
    host, _, port = url.removeprefix("http://").partition(":")
    answer = as_stranger(cluster, "n2", ASK.format(host=host, port=port, request=GENERATE))
    assert re.match(r"HTTP/1.1 40[13] ", answer), answer
    for path in [*run_dir.glob("slurm/**/*"), *run_dir.glob("attempts/1/*.log"), run_dir / "run.yaml"]:
        if path.is_file():
            assert key not in path.read_text(errors="replace"), path


def engine_url(run_dir: Path, node: int) -> str:
    log = (run_dir / "attempts" / "1" / f"agent-{node}.log").read_text()
    found = re.search(r"engine=\S+ .* url=(\S+)", log)
    assert found is not None, log
    return found[1]
