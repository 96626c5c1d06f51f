"""The smallest run by hand on one node, for bench/submit.py: an engine, a trainer, one sync, the samples of one step.

    srun python bench/by_hand.py RUN_FILE FOLDER

No agent, no torchrun, no gate, no checks, no trajectory store. Prints when the samples were there (epoch seconds).
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from core.config import load_run_file  # noqa: E402
from core.sglang.launch import EngineSpec, command, environment  # noqa: E402


def main() -> None:
    """Start both, sync, generate, say when."""
    config = load_run_file(sys.argv[1])
    model_dir = Path(config.model.path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spec = EngineSpec("hand", model_dir, "cpu", "float32", "127.0.0.1", port, api_key="key")
    with (Path(sys.argv[2]) / "engine.log").open("wb") as log:
        engine = subprocess.Popen(command(spec), env=environment(spec, os.environ), stdout=log, stderr=log)
    try:
        generate(config, model_dir, f"http://127.0.0.1:{port}")
        print(time.time(), flush=True)
    finally:
        engine.kill()


def generate(config: object, model_dir: Path, url: str) -> None:
    """Load the model, wait for the engine, give it the weights, sample four groups of four."""
    import asyncio

    from core.config.schema import RunConfig
    from core.megatron.trainer import MegatronTrainer
    from core.pretrained.shape import model_shape
    from core.samples import SamplingParams
    from core.sglang.client import EngineClient, Timeouts
    from tests.support.engine_updates import updating

    assert isinstance(config, RunConfig)
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    shape = model_shape(config.model, model_dir)
    trainer = MegatronTrainer(config, shape, model_dir, "cpu")
    client = EngineClient(url, "key", shape.vocab_size, Timeouts(generate_s=60))
    client.wait_healthy(120)
    with updating(client, "step0") as update:
        for bucket in trainer.named_buckets(512 * 2**20):
            update.send(bucket)
    settings = [SamplingParams(max_response_tokens=8, seed=index) for index in range(4)]

    async def rollout() -> None:
        await asyncio.gather(*(client.generate_group([5, 6, 7, 8], settings) for _ in range(4)))

    asyncio.run(rollout())


if __name__ == "__main__":
    main()
