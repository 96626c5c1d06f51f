"""Log-probs and entropies against torch's own softmax, in value and gradient."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from core.megatron.layers import vocab


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dist.ProcessGroup]:
    """A process group of one; the split vocabulary is covered by the layouts' test."""
    store: Path = tmp_path_factory.mktemp("store") / "file"
    dist.init_process_group("gloo", store=dist.FileStore(str(store), 1), rank=0, world_size=1)
    yield dist.group.WORLD  # type: ignore[misc]
    dist.destroy_process_group()


@pytest.mark.parametrize("chunk", [1, 50, 10**6], ids=lambda n: f"chunk{n}")
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("entropy_gradient", [True, False], ids=["entropy", "no-entropy"])
@pytest.mark.parametrize("num_targets", [7, 0])
def test_matches_log_softmax(
    group: dist.ProcessGroup,
    monkeypatch: pytest.MonkeyPatch,
    chunk: int,
    temperature: float,
    entropy_gradient: bool,
    num_targets: int,
) -> None:
    monkeypatch.setitem(vocab.CHUNK_ELEMENTS, "cpu", chunk)
    generator = torch.Generator().manual_seed(0)
    logits = (8 * torch.randn(num_targets, 20, generator=generator)).requires_grad_()
    targets = torch.randint(0, 17, (num_targets,), generator=generator)
    weights = torch.randn(2, num_targets, generator=generator)

    log_p = (logits[:, :17] / temperature).log_softmax(-1)
    wanted = (log_p.gather(1, targets[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1))
    used = 2 if entropy_gradient else 1
    expected_gradient = torch.autograd.grad(sum((weights[i] * wanted[i]).sum() for i in range(used)), logits)[0]  # type: ignore[misc]

    leaf = logits.detach().clone().requires_grad_()
    found = vocab.target_log_probs(leaf * 1.0, targets, 17, group, temperature, entropy_gradient)
    assert found[1].requires_grad == entropy_gradient
    sum((weights[i] * found[i]).sum() for i in range(used)).backward()  # type: ignore[union-attr]
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(leaf.grad, expected_gradient, rtol=1e-4, atol=1e-6)


def test_bfloat16_logits_give_float32_results(group: dist.ProcessGroup) -> None:
    logits = torch.randn(5, 9).bfloat16()
    log_probs, entropy = vocab.target_log_probs(logits, torch.arange(5), 9, group)
    assert log_probs.dtype == entropy.dtype == torch.float32
    wanted = logits.float().log_softmax(-1)[torch.arange(5), torch.arange(5)]
    torch.testing.assert_close(log_probs, wanted)
