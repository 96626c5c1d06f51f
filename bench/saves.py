"""What a step waits for a checkpoint: written before the run goes on, and while it does. The demo's model on CPUs.

An update goes on beside the writing, as the next step would; all of it takes the same cores here. SmolLM2-135M in fp32:
parameters and two moments, 1.5 GiB. Left out: GPUs, whose copies to the host cross a link.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

import modelcfg  # noqa: E402
from bench.gpu_trainer import make_samples  # noqa: E402
from bench.record import report  # noqa: E402
from bench.update import GROUP_SIZE, GROUPS, PROMPT_TOKENS, RESPONSE_TOKENS  # noqa: E402
from core.config import load_run_file  # noqa: E402
from core.loop.checkpoints import Checkpoints  # noqa: E402
from core.loop.state import LoopState  # noqa: E402
from core.megatron.trainer import MegatronTrainer  # noqa: E402
from core.pretrained.locate import locate  # noqa: E402

REPETITIONS = 5


def main() -> None:
    """Measure, print, write results/saves.json."""
    one_rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    os.environ.update(one_rank)
    config = load_run_file(ROOT / "examples" / "smollm2-arithmetic.yaml")
    trainer = MegatronTrainer(config, modelcfg.load("smollm2-135m"), locate(config.model.path), "cpu")
    samples = make_samples(GROUPS * GROUP_SIZE, PROMPT_TOKENS, RESPONSE_TOKENS, group_size=GROUP_SIZE)
    folder = Path(tempfile.mkdtemp(prefix="ebbtide-saves."))
    seconds: dict[str, list[float]] = defaultdict(list)
    try:
        stores = {
            how: Checkpoints(folder / how, trainer, interval=1, keep=1, num_steps=99, asynchronous=how == "beside")
            for how in ("before", "beside")
        }
        for number in range(REPETITIONS + 1):
            for how, store in stores.items():
                took = {
                    f"save, written {how}": _timed(lambda store=store, n=number: store.save(LoopState(n))),  # type: ignore[misc]
                    f"update, written {how}": _timed(lambda: trainer.update(samples)),
                    f"rest of writing {how}": _timed(store.wait),
                }
                for name, value in took.items():
                    if number:  # the first warms up
                        seconds[name].append(value)
        size = sum(path.stat().st_size for path in (folder / "beside").rglob("*") if path.is_file())
    finally:
        shutil.rmtree(folder)
    waited = [statistics.median(seconds[f"save, written {how}"]) for how in stores]
    report(
        "saves",
        dict(seconds),
        before_over_beside=waited[0] / waited[1],
        gib=size / 2**30,
        threads=torch.get_num_threads(),
    )


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
