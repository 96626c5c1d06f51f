"""On a GPU: both kernels against plain attention in float32, shared prompts and fewer key-value heads included."""

from __future__ import annotations

import pytest
import torch

from core.megatron.attention import on_gpu as gpu_attention
from core.megatron.attention import packed as attention
from core.megatron.attention.plan import AttentionPlan
from core.megatron.rows.packing import Segment

pytestmark = pytest.mark.gpu
PLAIN = [Segment(0, 300), Segment(300, 17), Segment(317, 1)]
LONG = [Segment(0, 1300), Segment(1300, 1024), Segment(2324, 1700)]
BEHIND = [Segment(0, 60), Segment(60, 1500, 0, 60), Segment(1560, 2000, 0, 60), Segment(3560, 2500)]
BEHIND += [Segment(6060, 1400)]
SHARED = [Segment(0, 9), Segment(9, 90, 0, 9), Segment(99, 3, 0, 9), Segment(102, 60), Segment(162, 200, 102, 60)]


@pytest.mark.parametrize("segments", [PLAIN, SHARED, LONG, BEHIND], ids=["plain", "shared", "long", "behind"])
@pytest.mark.parametrize("groups", [8, 2, 1])
@pytest.mark.parametrize(
    ("kernel", "window", "has_sinks"), [("flash", None, False), ("cudnn", None, False), ("flash", 128, True)]
)
def test_ragged_is_right(
    segments: list[Segment],
    groups: int,
    kernel: str,
    window: int | None,
    has_sinks: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    tokens = sum(s.length for s in segments)
    plan = AttentionPlan(segments, "cuda")
    torch.manual_seed(0)
    made = [torch.randn(tokens, heads, 64, device="cuda") for heads in (8, groups, groups)]
    made += [torch.randn(8, device="cuda")] * has_sinks
    incoming = torch.randn(tokens, 8, 64, device="cuda")
    ours = [tensor.bfloat16().requires_grad_() for tensor in made]
    theirs = [tensor.detach().float().requires_grad_() for tensor in ours]
    monkeypatch.setattr(gpu_attention, "USE_CUDNN", kernel == "cudnn")
    assert (plan.whole is not None) == (segments in (LONG, BEHIND))
    found = gpu_attention.ragged(*ours[:3], plan, 0.125, window, *ours[3:])
    wanted = attention._blockwise(*theirs[:3], plan, 0.125, window, *theirs[3:])
    found.backward(incoming.bfloat16())
    wanted.backward(incoming.bfloat16().float())
    pairs = [(found.detach(), wanted.detach()), *((a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))]
    for a, b in pairs:
        assert a is not None
        assert b is not None
        assert float((a.float() - b).norm() / b.norm()) < 1e-2
