"""Runs over two GPU nodes, on one machine: two Slurm nodes in namespaces, a GPU each, NCCL over their network alone.

    python bench/two_nodes.py [--at-once 5] [--only dp2 engines]        # root, Slurm, two GPUs
    python bench/two_nodes.py --device cpu --at-once 1                  # root, Slurm; gloo in place of NCCL

Every case is `ebbtide submit` of three steps of a tiny random model, on a real Slurm cluster of its own
(tests/slurm_cluster); all at the same time. Each sync is proven (`placement.check_sync: 1`). The cases: `dp2`, a
trainer rank and an engine on each node; `engines`, the second node only generates and gets its weights by broadcast;
`experts-ep2`, experts shared out over both nodes; `engine-over-nodes`, one engine over the GPUs of both, which the
trainer ranks share with it; `killed-update` and `killed-rollout`, as `dp2`, but the second node
dies in the second step, and the job goes on with a spare one, which has the dead one's GPU. NCCL is forbidden what only
processes of one host can do, and its own log is read for what it did. Losses of each run are compared with those that
one GPU makes of its samples; in float32 also what the trainer ranks make of them, over both nodes (`replay.py`). Ends
with 1 if anything is not as wanted.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.layout_runs import NUM_STEPS, Steps, options_parser
from bench.node_runs import CASES, GPUS, NodeRun
from bench.two_gpus import MAX_LOSS_GAP, compare
from tests.slurm_cluster import why_not

MAX_EXACT_LOSS_GAP = 1e-5  # in float32
MAX_EXACT_LOGPROB_GAP = 1e-4
MAX_ENGINE_GAP = {"cuda": 0.1, "cpu": 1e-4}  # mean |log-prob|; bfloat16 with experts: up to 0.069 on one GPU
SOCKETS = "NET/Socket"


def measure(run: NodeRun) -> dict[str, Any]:
    """Run one case, compare; says on the way what went wrong."""
    try:
        result = run.go()
    except Exception as error:  # of the cluster, or of a run that left nothing: the other cases go on
        return _told({"case": run.name, "faults": [f"{type(error).__name__}: {error}"]}, run)
    again = result.pop("again")
    result |= gaps(result, again)
    return _told({**result, "faults": faults(result, run.device)}, run)


def _told(result: dict[str, Any], run: NodeRun) -> dict[str, Any]:
    if result["faults"]:
        print(f"=== {run.name}: {result['faults']}\n{run.told()}", flush=True)
    return result


def gaps(result: Mapping[str, Any], again: Mapping[str, Steps | None]) -> dict[str, float]:
    """How far the run is from one device, and the ranks over both nodes from one device in float32."""
    found: dict[str, float] = {}
    if alone := again.get("alone"):
        pairs = list(zip(result["losses"], (step["metrics"]["train/loss"] for step in alone), strict=True))
        found["loss_gap"] = max(abs(a - b) for a, b in pairs)
    if (over_nodes := again.get("over_nodes")) and (exact := again.get("exact")):
        apart = compare(over_nodes, exact)
        found["exact_loss_gap"] = apart["replay_loss_gap"]
        found["exact_logprob_gap"] = apart["replay_logprob_gap"]
    return found


def faults(result: Mapping[str, Any], device: str) -> list[str]:
    """What is not as wanted about one case."""
    case, wrong = CASES[result["case"]], []
    if result["rc"] != 0 or len(result["losses"]) != NUM_STEPS:
        wrong.append(f"ended with {result['rc']} after {len(result['losses'])} of {NUM_STEPS} steps")
    wrong += wrong_attempts(result["attempts"], bool(case.killed))
    if (apart := max(result["logprob_gap"], default=0.0)) > MAX_ENGINE_GAP[device]:
        wrong.append(f"engine and trainer {apart:.4f} apart, wanted {MAX_ENGINE_GAP[device]}")
    limits = {"loss_gap": MAX_LOSS_GAP["cuda"] if device == "cuda" else MAX_EXACT_LOSS_GAP}
    if case.over_nodes:
        limits |= {"exact_loss_gap": MAX_EXACT_LOSS_GAP, "exact_logprob_gap": MAX_EXACT_LOGPROB_GAP}
    for name, limit in limits.items():
        if (gap := result.get(name)) is None or gap > limit:
            wrong.append(f"{name} {gap}, wanted {limit}")
    if device == "cuda":
        wrong += wrong_links(result)
    return wrong + result["warnings"][:1]


def wrong_attempts(attempts: Sequence[Sequence[Any]], killed: bool) -> list[str]:
    """What is not as wanted about how the attempts ended, and on which nodes."""
    hows = [how for how, _, _ in attempts]
    wanted = ["node_failure", "complete"] if killed else ["complete"]
    if hows != wanted:
        return [f"attempts ended as {hows}, wanted {wanted}"]
    wrong = [f"nodes {nodes}, wanted two" for _, nodes, _ in attempts if len(nodes) != 2]
    if killed:
        (_, first, failed), (_, second, _) = attempts
        if failed != first[1:] or set(failed) & set(second):
            wrong.append(f"{failed} failed of {first} and the next attempt had {second}, wanted it without {first[1:]}")
    return wrong


def wrong_links(result: Mapping[str, Any]) -> list[str]:
    """What NCCL connected by other than the network, or with fewer than two GPUs."""
    wrong = [f"NCCL went by {via} {times} times" for via, times in result["via"].items() if via != SOCKETS]
    if not result["via"].get(SOCKETS):
        wrong.append("NCCL's log tells of no connection over the network")
    if len(result["gpus"]) != 2:
        wrong.append(f"groups of two had the GPUs {result['gpus']}, wanted two of them")
    return wrong


def table(results: list[dict[str, Any]]) -> str:
    """The results as a table for a person."""
    head = f"{'case':<18}{'rc':>3}{'start s':>9}{'whole s':>9}  {'sync s':<17}{'engine-trainer':<22}{'loss':>9}"
    rows = [f"{head}{'float32 loss':>14}{'log-prob':>10}{'sent MiB':>10}  links, attempts"]
    for r in results:
        if "rc" not in r:
            rows.append(f"{r['case']:<18} {'; '.join(r['faults'])}")
            continue
        measured = [f"{r[k]:.1e}" if k in r else "-" for k in ("loss_gap", "exact_loss_gap", "exact_logprob_gap")]
        syncs, apart = (" ".join(f"{v:.{n}f}" for v in r[k]) for k, n in (("sync_s", 2), ("logprob_gap", 4)))
        tried = ", then ".join(f"{how} on {'+'.join(nodes)}" for how, nodes, _ in r["attempts"])
        rows.append(
            f"{r['case']:<18}{r['rc']!s:>3}{r['start_s']!s:>9}{r['whole_s']!s:>9}  {syncs:<17}{apart:<22}"
            f"{measured[0]:>9}{measured[1]:>14}{measured[2]:>10}{r['sent_mib']:>10}  "
            f"{r['via'] or 'gloo'}, {tried}: {'; '.join(r['faults']) or 'ok'}"
        )
    return "\n".join(rows)


def why_not_here(device: str) -> str | None:
    """The reason for which nothing can be measured here; None if it can."""
    lacking = [f"/dev/nvidia{gpu}" for gpu in sorted(set(GPUS)) if not Path(f"/dev/nvidia{gpu}").exists()]
    if device == "cuda" and lacking:
        return f"found no {' and no '.join(lacking)}; wanted two GPUs: use --device cpu, or a machine with two"
    return why_not(accounting=False)


def main() -> None:
    """Measure, print, write results/two_nodes.json."""
    parser = options_parser(__doc__ or "", list(CASES), "cases")
    options = parser.parse_args()
    if reason := why_not_here(options.device):
        parser.error(reason)
    folder = options.folder.resolve() if options.folder else Path(tempfile.mkdtemp(prefix="two-nodes-"))
    runs = [NodeRun(name, folder, options.device) for name in options.only]
    with ThreadPoolExecutor(options.at_once) as threads:
        results = list(threads.map(measure, runs))
    print(table(results), flush=True)
    if options.device == "cuda":
        from bench.record import report

        report("two_nodes", {r["case"]: r.get("sync_s") or [0.0] for r in results}, cases=results)
    sys.exit(any(result["faults"] for result in results))


if __name__ == "__main__":
    main()
