"""The Triton kernels against plain torch: in Triton's interpreter on a CPU, compiled where there is a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.waiting import COMMAND_S

GPU = torch.cuda.is_available()
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytest.importorskip("triton")

if GPU or INTERPRETED:
    from core.megatron.layers.fused import rotary, swiglu, vocab

DEVICE = "cuda" if GPU else "cpu"
TOLERANCE = {torch.float32: {"rtol": 1e-5, "atol": 1e-5}, torch.bfloat16: {"rtol": 2e-2, "atol": 2e-2}}
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
runs_kernels = pytest.mark.skipif(not (GPU or INTERPRETED), reason="runs in the interpreter's process")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.skipif(GPU or INTERPRETED, reason="the tests below run right here")
def test_kernels_in_the_interpreter() -> None:
    """In a process of its own: Triton decides for good when it is imported, and engines must not inherit it."""
    env = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-q", __file__, str(Path(__file__).with_name("test_grouped.py"))]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=COMMAND_S)
    assert done.returncode == 0, done.stdout[-4000:]


def noise(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


@runs_kernels
@both_dtypes
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize(("columns", "valid"), [(5000, 5000), (5000, 4990), (37, 30), (9000, 4096)])
def test_statistics_and_gradient(dtype: torch.dtype, temperature: float, columns: int, valid: int) -> None:
    rows = 5
    logits = 6 * noise(rows, columns, dtype=dtype)
    column = torch.tensor([0, 3, valid - 1, 0, 7], device=DEVICE)
    local = torch.tensor([True, True, True, False, True], device=DEVICE)
    z = logits[:, :valid].double() / temperature
    top = z.amax(1)
    e = (z - top[:, None]).exp()
    wanted = torch.stack(
        (top, e.sum(1), (e * (z - top[:, None])).sum(1), torch.where(local, z[range(rows), column], 0))
    )
    found = vocab.statistics(logits, column, local, valid, temperature)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)

    log_normaliser = top + e.sum(1).log()
    entropy = -((z - log_normaliser[:, None]).exp() * (z - log_normaliser[:, None])).sum(1)
    g, h = noise(rows, seed=1).double(), noise(rows, seed=2).double()
    for for_entropy in (None, h):
        leaf = logits[:, :valid].double().requires_grad_()
        log_p = (leaf / temperature).log_softmax(1)
        loss = (torch.where(local, log_p[range(rows), column], -log_normaliser + 0 * log_p[:, 0]) * g).sum()
        loss = loss - (torch.where(local, 0.0, torch.logsumexp(leaf / temperature, 1)) * g).sum()
        if for_entropy is not None:
            loss = loss + (-(log_p.exp() * log_p).sum(1) * for_entropy).sum()
        loss.backward()
        written = logits.clone()
        vocab.gradient_in_place(
            *(written, column, local, valid, temperature, log_normaliser.float(), entropy.float(), g.float()),
            None if for_entropy is None else for_entropy.float(),
        )
        assert leaf.grad is not None
        torch.testing.assert_close(written[:, :valid].double(), leaf.grad, **TOLERANCE[dtype])
        assert not written[:, valid:].any()


@runs_kernels
def test_no_rows() -> None:
    empty, none = noise(0, 8), torch.zeros(0, device=DEVICE)
    found = vocab.statistics(empty, none.long(), none.bool(), 8, 1.0)
    assert found.shape == (4, 0)
    vocab.gradient_in_place(empty, none.long(), none.bool(), 8, 1.0, none, none, none, None)


@runs_kernels
@both_dtypes
@pytest.mark.parametrize("width", [24, 1500])
def test_swiglu(dtype: torch.dtype, width: int) -> None:
    both = noise(3, 1, 2 * width, dtype=dtype).requires_grad_()
    incoming = noise(3, 1, width, dtype=dtype, seed=1)
    reference = both.detach().double().requires_grad_()
    gate, up = reference.chunk(2, -1)
    wanted = torch.nn.functional.silu(gate) * up
    wanted.backward(incoming.double())
    found = swiglu.swiglu(both)
    found.backward(incoming)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), wanted.detach(), **TOLERANCE[dtype])
    torch.testing.assert_close(both.grad.double(), reference.grad, **TOLERANCE[dtype])  # type: ignore[union-attr]


@runs_kernels
@both_dtypes
@pytest.mark.parametrize(("heads", "size"), [(9, 64), (3, 24), (17, 128)])
def test_rotation(dtype: torch.dtype, heads: int, size: int) -> None:
    tokens = 6
    wide = noise(tokens, heads, 2 * size, dtype=dtype)
    leaf = wide[..., :size].detach().requires_grad_()  # a view with gaps, as a split of query, key and value is
    angles = noise(tokens, size // 2, seed=3)
    cos, sin = angles.cos(), angles.sin()
    incoming = noise(tokens, heads, size, dtype=dtype, seed=1)
    reference = leaf.detach().double().requires_grad_()
    left, right = reference.chunk(2, -1)
    c, s = cos.double()[:, None], sin.double()[:, None]
    wanted = torch.cat((left * c - right * s, right * c + left * s), -1)
    wanted.backward(incoming.double())
    found = rotary.rotate(leaf, cos, sin)
    found.backward(incoming)
    assert found.is_contiguous()
    torch.testing.assert_close(found.double(), wanted.detach(), **TOLERANCE[dtype])
    torch.testing.assert_close(leaf.grad.double(), reference.grad, **TOLERANCE[dtype])  # type: ignore[union-attr]
