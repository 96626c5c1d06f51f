"""Weights to engines on other hosts: two trainer ranks, a real server that is published as living elsewhere."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from core.processes.rendezvous import Address, Member, Rendezvous
from core.sglang.weights import update_from_disk
from tests.support.engine_models import assert_same_model, load, perturbed
from tests.support.engine_servers import RunningEngine
from tests.support.waiting import COMMAND_S

pytestmark = pytest.mark.engine

RANK_MAIN = """
import json, os, sys
from datetime import timedelta
from pathlib import Path
import torch.distributed as dist
from safetensors.torch import load_file
from core.weights import sync as weight_sync
from core.engines.roster import Engines
from core.processes.rendezvous import Address, Rendezvous
from core.weights.files import WeightFiles

store, folder, model_dir, weights, engines = json.loads(sys.argv[1])
dist.init_process_group("gloo", timeout=timedelta(seconds=600))
rank = dist.get_rank()
weight_sync.BUCKET_BYTES = 100_000


class Source:
    def named_buckets(self, max_bytes):
        tensors = list(load_file(weights).items())
        for start in range(0, len(tensors), 5):
            self.seen.append(sorted(p.name for p in Path(folder).glob("*/*.safetensors")))
            yield tensors[start : start + 5]


source = Source()
source.seen = []
rendezvous = Rendezvous(Address.parse(store), 1, "the run's key")
engines = Engines(rendezvous, engines[rank], vocab_size=512, api_key=os.environ["KEY"], start_s=60, request_s=60)
engines.start()
sync = weight_sync.WeightSync(source, engines, [WeightFiles(engines, Path(folder), Path(model_dir))])
pushed = [sync.push("far-1"), sync.push("far-1"), sync.push("far-2")]
result = {
    "pushed": pushed,
    "versions": [engine.weight_version for engine in engines.alive()],
    "told": [engine.client.weight_version() for engine in engines.alive()],
    "written": source.seen[-1],
}
Path(weights).with_name(f"rank{rank}.json").write_text(json.dumps(result))
dist.barrier()
os._exit(0)
"""


def test_weights_reach_engines_on_other_hosts(engines: dict[str, RunningEngine], tmp_path: Path) -> None:
    """Rank 1 drives an engine of another host, which reads files that both ranks have written."""
    from safetensors.torch import save_file

    engine = engines["qwen3"]
    model = load(engine.model_dir)
    tensors = {name: tensor.clone() for name, tensor in perturbed(model, seed=11)}
    save_file(tensors, tmp_path / "weights.safetensors")
    listener = socket.create_server(("127.0.0.1", 0))
    rendezvous = Rendezvous(Address(*listener.getsockname()), 1, "the run's key", listener=listener)
    rendezvous.publish(Member("engine", "elsewhere", 1, "host9", engine.process.pid, engine.client.base_url))
    found = run_ranks(tmp_path, rendezvous.address, engine, [[], ["elsewhere"]])
    for rank, told in enumerate([[], ["far-2"]]):
        assert found[rank]["pushed"] == [True, False, True]
        assert found[rank]["versions"] == found[rank]["told"] == told
    num_files = -(-len(tensors) // 5) - 1  # the last bucket is not there yet when it is looked for
    assert 0 < len(found[0]["written"]) <= num_files
    assert not (tmp_path / "sync").exists()
    assert engine.client.weight_version() == "far-2"
    assert_same_model(engine.client, model)
    update_from_disk(engine.client, engine.model_dir, "base")
    with torch.no_grad():
        assert_same_model(engine.client, load(engine.model_dir))


def run_ranks(
    folder: Path, store: Address, engine: RunningEngine, names: list[list[str]]
) -> list[dict[str, list[object]]]:
    """Two ranks that push; what each saw."""
    main = folder / "main.py"
    main.write_text(RANK_MAIN)
    weights = folder / "weights.safetensors"
    arguments = json.dumps([str(store), str(folder / "sync"), str(engine.model_dir), str(weights), names])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(main)]
    env = {**os.environ, "KEY": engine.spec.api_key or "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, arguments], capture_output=True, text=True, timeout=COMMAND_S, env=env)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]
