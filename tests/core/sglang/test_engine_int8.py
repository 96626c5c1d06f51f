"""A real server on a CPU that computes in int8, beside a model whose linear layers round by ten lines of their own.

R rows, C columns, T tokens.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import silu

from core.pretrained.few_bits import FEW_BITS
from core.pretrained.packing import Packing
from core.samples import SamplingParams
from core.sglang.weights import checksums, update_from_disk
from core.weights.check import compare
from core.weights.quantised import quantised
from launchers.transfer.convert import convert
from launchers.transfer.new_directory import PRECISIONS, shape_of
from tests.support.engine_models import PROMPT, hf_logprobs, load, perturbed
from tests.support.engine_servers import RunningEngine, running_engine
from tests.support.engine_updates import updating
from tests.support.tiny_models import tiny_model

pytestmark = pytest.mark.engine
KINDS = {"qwen3": {}, "qwen3_moe": {"moe_intermediate_size": 64}}


def rounded(rows: Tensor) -> Tensor:
    """[R, C] as int8 with a factor for each row stand for it."""
    factors = rows.abs().amax(-1, keepdim=True) / 127
    return (rows / factors).round() * factors


def product(tokens: Tensor, weight: Tensor) -> Tensor:
    """[T, I] times [O, I], both rounded."""
    return rounded(tokens) @ rounded(weight).T


def round_products(model: Any) -> None:
    """Have linear layers and experts of a transformers model round what they multiply; router and output do not."""

    def experts(module: Any, states: Tensor, chosen: Tensor, shares: Tensor) -> Tensor:
        made = torch.zeros_like(states)
        for token, places in enumerate(chosen):
            for place, expert in enumerate(places):
                gate, up = product(states[token : token + 1], module.gate_up_proj[expert]).chunk(2, -1)
                made[token] += shares[token, place] * product(silu(gate) * up, module.down_proj[expert])[0]
        return made

    for name, module in model.named_modules():
        if name.endswith(".experts"):
            module.forward = experts.__get__(module)
        elif isinstance(module, torch.nn.Linear) and name != "lm_head":
            assert module.bias is None
            module.forward = (lambda one: lambda states: product(states, one.weight))(module)


def apart(found: list[float], wanted: Tensor) -> float:
    assert len(found) == len(wanted)
    return float((torch.tensor(found) - wanted).abs().mean())


def send(engine: RunningEngine, files: Path, packing: Packing, version: str) -> None:
    """Sync the weights of files, in buckets of twenty tensors."""
    tensors = quantised(list(load_file(files / "model.safetensors").items()), packing)
    with updating(engine.client, version) as update:
        for start in range(0, len(tensors), 20):
            update.send(tensors[start : start + 20])


@pytest.mark.parametrize("kind", KINDS)
def test_logprobs_are_those_of_rounded_products_after_each_sync(kind: str, tmp_path: Path) -> None:
    """A 20th as far from these as rounding takes them from the whole model; a sync brings what files of it bring."""
    directory = tiny_model(kind, tmp_path / "model", **KINDS[kind])
    model, reference = load(directory), load(directory)
    round_products(reference)
    packing = Packing.of(shape_of(directory), FEW_BITS["int8"])
    with running_engine(directory, tmp_path / "engine.log", packing=packing) as engine:
        for seed in (1, 2):
            perturbed(model, seed)
            for parameter in model.parameters():
                parameter.data.copy_(parameter.data.bfloat16())  # as files have what is not in int8
            reference.load_state_dict(model.state_dict())
            model.save_pretrained(tmp_path / f"step{seed}")
            send(engine, tmp_path / f"step{seed}", packing, f"step{seed}")
            made = asyncio.run(engine.client.generate(PROMPT, SamplingParams(40, seed=seed)))
            tokens = PROMPT + made.tokens
            wanted, whole = hf_logprobs(reference, tokens), hf_logprobs(model, tokens)
            gap = apart(wanted.tolist(), whole)
            assert gap > 1e-3
            assert apart(engine.client.score(tokens), wanted) < gap / 20
            assert apart(made.logprobs, wanted[len(PROMPT) - 1 :]) < gap / 20
            found = checksums(engine.client)
            files = convert(str(tmp_path / f"step{seed}"), tmp_path / f"int8-{seed}", PRECISIONS["int8"], verify=True)
            loaded = update_from_disk(engine.client, files.directory, f"loaded{seed}")
            compare(engine.spec.name, f"loaded{seed}", found, loaded)
