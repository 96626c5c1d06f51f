"""Log-probs of the demo's own model, SmolLM2-135M in float32, as near to float64 as its matrix products allow.

The measure is float64, not transformers in float32: torch's log_softmax and softmax on a CPU, which SGLang calls too,
make all log-probs too high, by some 6.6e-6 with this vocabulary of 49152. The trainer's own sum makes 6e-7 of error.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.support.ranks import run_ranks

# a short answer, a longer one, and text that is none
PAIRS = (
    ("What is 3 plus 4?", "The sum is 7.<|im_end|>"),
    ("What is 9 plus 8?", "To find the answer, we add the two numbers and get 18, which is correct."),
    ("What is 3 plus 4?", "Once upon a time there was a village near the sea, and a clock that ran backwards. " * 4),
)
Sample = tuple[int, list[int], list[int]]  # group, prompt, response


@pytest.fixture(scope="module")
def samples(smollm2_dir: Path) -> list[Sample]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2_dir)

    def tokens(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False).input_ids
        return found

    def prompt(question: str) -> list[int]:
        return tokens(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")

    return [(group, prompt(question), tokens(answer)) for group, (question, answer) in enumerate(PAIRS)]


def by_float64(directory: Path, samples: list[Sample]) -> torch.Tensor:
    """[N] log-probs of all response tokens, by transformers in float64."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float64)
    found = []
    for _, prompt, response in samples:
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
        found.append(logits.log_softmax(-1)[range(len(response)), response])
    return torch.cat(found)


def test_log_probs_are_those_of_float64(smollm2_dir: Path, samples: list[Sample], tmp_path: Path) -> None:
    """Measured: 1.7e-6 to 3.8e-6 in the mean, 2.2e-5 at most; the output layer's product makes the most."""
    (tmp_path / "samples.json").write_text(json.dumps(samples))
    case = {
        "model": str(smollm2_dir),
        "config": {"algorithm": {"kl_loss_coef": 0.0}},
        "actions": [["log_probs_of", str(tmp_path / "samples.json")]],
    }
    (found,) = run_ranks(tmp_path / "ranks", 1, {"digits": case})["digits"]
    ours = torch.tensor([value for one in found for value in one], dtype=torch.float64)
    error = (ours - by_float64(smollm2_dir, samples)).abs()
    assert error.mean() < 6e-6
    assert error.max() < 5e-5
