"""The first steps of a stored run, computed again from their samples, under another layout of trainer ranks.

    python -m torch.distributed.run --standalone --nproc-per-node 2 bench/replay.py RUN_FILE RUN_DIR OUT.json

RUN_FILE says the layout; RUN_DIR has the samples. No engine takes part, so every layout learns from the same samples,
and what differs is arithmetic. Rows are CUDA graphs where those of the run are. Writes metrics and log-probs of each
step, as the run's journal would have.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch.distributed as dist

from core.config import load_run_file
from core.megatron.trainer import MegatronTrainer
from core.planner import Device, plan_memory
from core.pretrained.locate import locate
from core.pretrained.shape import model_shape
from core.processes.device import resolve_device
from core.residency.memory import total_memory
from core.samples import TrainSample
from core.trajectory import StepRecord, list_steps, read_step, step_path


def _advantage(record: StepRecord, i: int) -> float | list[float]:
    return float(record.advantage[i]) if record.token_advantage is None else record.token_advantage[i].tolist()


def samples_of(record: StepRecord) -> list[TrainSample]:
    """What the trainer was given."""
    return [
        TrainSample(
            group=int(record.group[i]),
            prompt_tokens=record.prompt_tokens[i].tolist(),
            response_tokens=record.response_tokens[i].tolist(),
            loss_mask=record.loss_mask[i].tolist(),
            advantage=_advantage(record, i),
            logprobs_engine=record.logprobs_engine[i].tolist(),
            reward=None if math.isnan(record.reward[i]) else float(record.reward[i]),
        )
        for i in range(len(record))
    ]


def main() -> None:
    """Compute, write. Collective over the ranks that torchrun started."""
    run_file, run_dir, out = map(Path, sys.argv[1:4])
    config = load_run_file(run_file)
    model_dir = locate(config.model.path)
    shape = model_shape(config.model, model_dir)
    device = resolve_device(config.placement.device)
    trainer = MegatronTrainer(config, shape, model_dir, device)
    if graphs := plan_memory(config, shape, Device(device, total_memory(device))).graphs:
        trainer.use_graphs(graphs)
    steps = []
    for step in list_steps(run_dir):
        result = trainer.update(samples_of(read_step(step_path(run_dir, step))))
        logprobs = [value for one in result.logprobs for value in one]
        steps.append({"metrics": result.metrics, "logprobs": logprobs})
    if dist.get_rank() == 0:
        out.write_text(json.dumps(steps))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
