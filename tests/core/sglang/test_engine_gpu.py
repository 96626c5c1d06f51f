"""A real server on a GPU: weights through CUDA IPC, memory given back and taken again, death.

Needs a GPU, SGLang's CUDA build (tried: 0.5.16) and transformers. All in one test, because the start takes a minute.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from core.samples import SamplingParams
from core.sglang.errors import WeightsRefused
from core.sglang.launch import EngineSpec
from core.sglang.weights import update_from_disk
from tests.support.engine_servers import RunningEngine, free_port, gpu_engine, wait_ended
from tests.support.engine_updates import updating
from tests.support.gpu_models import PROMPT, perturbed, used_bytes, worst_difference
from tests.support.tiny_models import GPU_SIZES, tiny_model

pytestmark = [pytest.mark.gpu, pytest.mark.engine]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    folder = tmp_path_factory.mktemp("gpu-engine")
    directory = tiny_model("qwen3", folder / "model", **GPU_SIZES)
    deterministic = os.environ.get("EBBTIDE_TEST_DETERMINISTIC") == "1"
    spec = EngineSpec(
        *("gpu", directory, "cuda", "bfloat16", "127.0.0.1", free_port()),
        memory_fraction=0.2,
        max_total_tokens=65536,
        api_key="key",
        deterministic=deterministic,
        num_threads=4,
    )
    with gpu_engine(spec, folder / "engine.log") as running:
        yield running


def test_gpu_engine(engine: RunningEngine, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    client = engine.client
    print("version", client.capabilities().version, "session", client.capabilities().needs_weight_session)
    model = AutoModelForCausalLM.from_pretrained(engine.model_dir, dtype=torch.bfloat16).cuda()
    before = worst_difference(client, model)
    assert before < 0.15

    full = used_bytes()
    client.release_memory()
    assert used_bytes() < full - 2**26  # the KV cache alone is more
    client.resume_memory(["weights"])
    tensors = perturbed(model, 1)
    mixed = [(name, tensor.float() if "norm" in name else tensor) for name, tensor in tensors]
    with updating(client, "step-1") as update:
        for start in range(0, len(mixed), 7):
            update.send(mixed[start : start + 7])
    client.resume_memory()
    assert client.weight_version() == "step-1"
    after = worst_difference(client, model)
    assert after < 0.15
    old = AutoModelForCausalLM.from_pretrained(engine.model_dir, dtype=torch.bfloat16).cuda()
    control = worst_difference(client, old)
    assert control > 0.5
    print(f"log-prob difference: before {before:.3f}, after {after:.3f}, against the old weights {control:.3f}")

    with pytest.raises(WeightsRefused), updating(client, "bad") as update:
        update.send([("model.norm.weight", torch.zeros(3, device="cuda"))])
    model.save_pretrained(tmp_path)
    update_from_disk(client, tmp_path, "disk")
    assert worst_difference(client, model) < 0.15

    params = [SamplingParams(32, seed=seed) for seed in range(8)]
    first = asyncio.run(client.generate_group(PROMPT, params))
    alone = asyncio.run(client.generate(PROMPT, params[3]))
    again = alone.tokens == first[3].tokens
    print(f"deterministic={engine.spec.deterministic}: same tokens alone and in a batch: {again}")
    assert again or not engine.spec.deterministic
    assert len({tuple(one.tokens) for one in first}) == 8

    family = psutil.Process(engine.process.pid).children(recursive=True)
    assert "key" not in " ".join(word for process in family for word in process.cmdline()).split()
    engine.process.kill()
    wait_ended(family)
