"""States over the tokens of a packed row, against the rule token by token."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core.megatron.attention.delta_rule import delta_rule
from core.megatron.attention.runs import plan_runs
from core.megatron.rows.packing import Segment

HEADS, STATES, KEY, VALUE = 2, 3, 8, 5
ROWS = {
    "one sequence": (Segment(0, 130),),
    "one token": (Segment(0, 1),),
    "a whole chunk": (Segment(0, 64),),
    "several sequences": (Segment(0, 3), Segment(3, 200), Segment(203, 64), Segment(267, 65)),
    "prompts of two groups": (
        *(Segment(0, 70), Segment(70, 130, 0, 70), Segment(200, 5, 0, 70)),
        *(Segment(205, 64), Segment(269, 1, 205, 64), Segment(270, 66, 205, 64)),
        *(Segment(336, 100), Segment(436, 2)),
    ),
}


def _inputs(num_tokens: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    query, key = torch.randn(2, num_tokens, HEADS, KEY, generator=generator)
    key = key / key.norm(dim=-1, keepdim=True)
    value = torch.randn(num_tokens, HEADS, STATES, VALUE, generator=generator)
    decay = -2 * torch.rand(num_tokens, HEADS, STATES, generator=generator)
    strength = torch.rand(num_tokens, HEADS, STATES, generator=generator)
    return [one.requires_grad_() for one in (query, key, value, decay, strength)]


def _token_by_token(inputs: list[Tensor], segments: tuple[Segment, ...]) -> Tensor:
    query, key, value, decay, strength = inputs
    ends: dict[int, Tensor] = {}
    outputs = []
    for segment in segments:
        state = torch.zeros(HEADS, STATES, KEY, VALUE)
        if segment.prefix_length:
            state = ends[segment.prefix_start]
        for t in range(segment.start, segment.start + segment.length):
            state = state * decay[t].exp()[..., None, None]
            written = strength[t][..., None] * (value[t] - torch.einsum("hd,hrdv->hrv", key[t], state))
            state = state + torch.einsum("hd,hrv->hrdv", key[t], written)
            outputs.append(torch.einsum("hd,hrdv->hrv", query[t], state))
        ends[segment.start] = state
    return torch.stack(outputs)


@pytest.mark.parametrize("row", ROWS)
def test_chunks_give_what_the_rule_gives_token_by_token(row: str) -> None:
    segments = ROWS[row]
    inputs = _inputs(sum(segment.length for segment in segments))
    found, wanted = delta_rule(*inputs, plan_runs(segments, "cpu")), _token_by_token(inputs, segments)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=2e-5)
    weights = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(4))
    ours, theirs = (torch.autograd.grad((one * weights).sum(), inputs) for one in (found, wanted))
    for gradient, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-4)


def test_a_response_sees_the_last_tokens_of_its_prompt_and_no_other_sequence() -> None:
    runs = plan_runs((Segment(0, 2), Segment(2, 3, 0, 2), Segment(5, 1, 0, 2), Segment(6, 2)), "cpu")
    one, two, three = (found.tolist() for found in runs.before(3))
    assert one == [8, 0, 1, 2, 3, 1, 8, 6]
    assert two == [8, 8, 0, 1, 2, 0, 8, 8]
    assert three == [8, 8, 8, 0, 1, 8, 8, 8]
    assert runs.before(0) == []


def test_what_runs_at_once_begins_together_and_ends_apart() -> None:
    runs = plan_runs(ROWS["prompts of two groups"], "cpu")
    first, second = runs.waves
    assert (first.running, first.origins) == ((4, 2), None)
    assert second.running == (4, 2, 1)
    assert second.origins is not None
    assert second.origins.tolist() == [1, 2, 1, 2], "the longest first, each with its prompt's place"
    assert runs.num_chunks == 6 + 7
