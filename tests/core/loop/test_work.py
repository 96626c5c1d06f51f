from __future__ import annotations

import pytest

from core.loop.work import gpu_peak_flops, work_of
from core.samples import Prompt, Sample, Status

PROMPT = Prompt(0, "", (1, 2, 3, 4), None)
SAMPLES = [
    Sample(0, index, PROMPT, [5] * length, [-1.0] * length, Status.COMPLETED, "step0", seed=None)
    for index, length in enumerate((2, 6))
]


@pytest.mark.parametrize(("share_prompts", "prompts"), [(True, 1), (False, 2)])
def test_prompts_count_once_where_they_are_shared(share_prompts: bool, prompts: int) -> None:
    found = work_of(SAMPLES, share_prompts=share_prompts)
    assert (found.tokens, found.targets) == (8 + 4 * prompts, 8)
    assert found.pairs == 2 * (4 + 1) + 6 * (4 + 3) + 8 * prompts


def test_a_cpu_has_no_known_peak() -> None:
    assert gpu_peak_flops("cpu") is None
