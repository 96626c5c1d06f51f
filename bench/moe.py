"""Experts on one GPU: the products of one layer, and forward and backward of a model with some of its layers.

The layer beside torch's own grouped products with a sort and a weighted sum around them, the model beside Megatron's
loop over the experts, in the same run. MFU counts the parameters that compute a token, over 989 TFLOP/s.
`--tune` tries other tiles. Weights are noise, so that the experts are chosen about alike.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor

import modelcfg
from bench.gpu_trainer import RandomTrainer, make_config, make_samples, one_rank
from bench.limits import kernels_of, matmul_flops, seconds_of
from bench.mfu import PEAK, measure, show
from bench.record import report
from core.megatron.layers import experts
from core.megatron.layers.expert_places import Slots, Tiles
from core.megatron.layers.fused import grouped
from core.megatron.layers.fused.grouped import Tiling
from core.megatron.layers.grouped_experts import Products, Projection
from core.megatron.parallel import initialise, shut_down
from modelcfg import ModelShape

TOKENS = (4096, 16384)
NUM_SAMPLES, PROMPT, RESPONSE = 96, 512, 1064  # of an update, in groups of 8
BF16 = torch.bfloat16
TRIED = ((64, 128), (128, 256), (64,), (4, 8), (3, 4))  # rows, columns, summed over, warps, stages


class Layer:
    """The experts of one layer, with weights, gradients and tokens that are noise."""

    def __init__(self, shape: ModelShape, tokens: int) -> None:
        self.shape, self.tokens = shape, tokens
        torch.manual_seed(0)
        self.first = self._weights(2 * shape.ffn_hidden_size, shape.hidden_size)
        self.second = self._weights(shape.hidden_size, shape.ffn_hidden_size)
        self.products = Products(Projection(list(self.first)), Projection(list(self.second)))
        self.hidden = torch.randn(tokens, shape.hidden_size, device="cuda", dtype=BF16, requires_grad=True)
        scores = torch.randn(tokens, shape.num_experts, device="cuda")
        top = scores.topk(shape.experts_per_token, dim=1)
        self.chosen = top.indices
        self.probabilities = top.values.softmax(1).to(BF16).requires_grad_()
        self.incoming = torch.randn(tokens, shape.hidden_size, device="cuda", dtype=BF16)

    def _weights(self, rows: int, columns: int) -> list[Tensor]:
        whole = torch.randn(self.shape.num_experts, rows, columns, device="cuda", dtype=BF16) * 0.02
        gradients = torch.zeros(self.shape.num_experts, rows, columns, device="cuda")
        found = [torch.nn.Parameter(weight) for weight in whole]
        for weight, gradient in zip(found, gradients, strict=True):
            weight.main_grad = gradient  # type: ignore[attr-defined]
        return found

    @property
    def flops(self) -> float:
        """Forward and backward."""
        shape = self.shape
        return 18.0 * self.tokens * shape.experts_per_token * shape.hidden_size * shape.ffn_hidden_size

    def ours(self) -> None:
        """One pass forward and back, with the sort."""
        slots = Slots.of(self.chosen, self.shape.num_experts)
        self.products(self.hidden, self.probabilities, slots).backward(self.incoming)

    def theirs(self) -> Callable[[], None]:
        """The same by torch's grouped products; gradients of the weights are added to fp32 as well."""
        stacks = [torch.stack([w.detach() for w in part]).requires_grad_() for part in (self.first, self.second)]
        sums = [torch.zeros(stack.shape, device="cuda") for stack in stacks]

        def once() -> None:
            slots = Slots.of(self.chosen, self.shape.num_experts)
            assert slots.token is not None
            assert slots.place is not None
            ends = slots.starts[1:]
            rows = self.hidden[slots.token.long()]
            both = torch._grouped_mm(rows, stacks[0].transpose(1, 2), offs=ends)
            gate, up = both.chunk(2, -1)
            out = torch._grouped_mm(torch.nn.functional.silu(gate) * up, stacks[1].transpose(1, 2), offs=ends)
            (out[slots.place.long()] * self.probabilities[..., None]).sum(1).backward(self.incoming)
            for total, stack in zip(sums, stacks, strict=True):
                total.add_(stack.grad)
                stack.grad = None

        return once


def of_layer(shape: ModelShape, tokens: int) -> dict[str, Any]:
    """Seconds and share of the peak, ours and torch's."""
    layer = Layer(shape, tokens)
    found = {"ours": seconds_of(layer.ours, 10), "torch": seconds_of(layer.theirs(), 10)}
    line = {"tokens": tokens, **{f"{name}_s": s for name, s in found.items()}}
    line |= {f"{name}_mfu": layer.flops / s / PEAK for name, s in found.items()}
    print("layer  " + "  ".join(f"{k} {v:.4g}" for k, v in line.items()), flush=True)
    for event in kernels_of(layer.ours)[:9]:
        print(f"    {event.self_device_time_total / 1e3:7.3f} ms {event.count:3d}x {event.key[:70]}", flush=True)
    return line


def of_model(shape: ModelShape, tokens: int) -> list[dict[str, Any]]:
    """Forward and backward of the model, by our products and by the loop over the experts."""
    lines = [{**measure(shape, tokens, 0), "experts": "products"}]
    show(lines[-1])
    with patch.object(experts, "can_group", lambda _: False):
        lines.append({**measure(shape, tokens, 0), "experts": "loop"})
    show(lines[-1])
    return lines


def of_update(shape: ModelShape) -> dict[str, Any]:
    """Seconds of an optimiser step over many rows, with masters and moments on the GPU; its tokens."""
    shut_down()  # the trainer begins by itself
    samples = make_samples(NUM_SAMPLES, PROMPT, RESPONSE, group_size=8)
    trainer = RandomTrainer(make_config(NUM_SAMPLES), shape, Path(tempfile.gettempdir()), "cuda")
    trainer.update(samples)
    line = {"layers": shape.num_layers, "tokens": NUM_SAMPLES * (PROMPT + RESPONSE)}
    line |= {"seconds": seconds_of(lambda: trainer.update(samples), 3)}
    print("update  " + "  ".join(f"{k} {v:.4g}" for k, v in line.items()), flush=True)
    return line


def tune(shape: ModelShape) -> None:
    """Print the times of products with other tiles: forward, transposed, and of the gradients of the weights."""
    for tokens in TOKENS:
        layer, found = Layer(shape, tokens), {name: [] for name in ("forward", "transposed", "gradient")}
        slots = Slots.of(layer.chosen, shape.num_experts)
        for sizes in itertools.product(*TRIED):
            for name, act in _products(layer, slots, Tiling(*sizes)).items():
                try:
                    found[name].append((seconds_of(act, 5), sizes))
                except Exception as error:  # too much shared memory
                    print(f"    {name} {sizes}: {type(error).__name__}", flush=True)
        flops = layer.flops / 9 * 2  # of the first projection's product
        for name, times in found.items():
            for seconds, sizes in sorted(times)[:4]:
                print(f"tune {name} {tokens}: {seconds * 1e3:.3f} ms {flops / seconds / 1e12:.0f} TFLOP/s {sizes}")


def _products(layer: Layer, slots: Slots, how: Tiling) -> dict[str, Callable[[], object]]:
    number, hidden = layer.chosen.numel(), layer.hidden.detach()
    tiles = Tiles.of(slots.starts, number, how.rows)
    both = torch.randn(number, 2 * layer.shape.ffn_hidden_size, device="cuda", dtype=BF16)
    first = layer.products.first
    return {
        "forward": lambda: grouped.product(hidden, slots.token, first.weights, tiles, how),
        "transposed": lambda: grouped.product(both, None, first.weights, tiles, how, transposed=True),
        "gradient": lambda: grouped.add_weight_gradients(
            both, None, hidden, slots.token, slots.starts, first.gradients, how
        ),
    }


def main() -> None:
    """Measure, print, write results/moe.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="qwen3-30b-a3b")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--update-layers", type=int, default=8, help="of the model whose optimiser step is timed")
    parser.add_argument("--tune", action="store_true")
    options = parser.parse_args()
    shape = modelcfg.load(options.shape)
    if options.tune:
        tune(shape)
    one_rank()
    initialise(make_config(8).placement, 0, "cuda")
    peak = matmul_flops()
    layers = [of_layer(shape, tokens) for tokens in TOKENS]
    cut = shape.model_copy(update={"num_layers": options.layers})
    models = [line for tokens in TOKENS for line in of_model(cut, tokens)]
    update = of_update(shape.model_copy(update={"num_layers": options.update_layers}))
    seconds = {f"{line['experts']} {line['tokens']}": line["seconds"] for line in models}
    report(
        "moe",
        seconds,
        layer=layers,
        model=models,
        update=[update],
        matmul_tflops=peak / 1e12,
        num_layers=options.layers,
    )


if __name__ == "__main__":
    main()
