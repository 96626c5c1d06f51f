"""One optimiser step of the demo's batch: ours beside plain transformers on the same machine, in turns.

The peer pads all samples to one length and computes every prompt again for each of its samples, as a plain training
loop does; both use fp32, AdamW and the same loss. SmolLM2-135M, 8 groups x 8 samples, 17 prompt and 12 response tokens.
"""

from __future__ import annotations

import os
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

import modelcfg  # noqa: E402
from bench.gpu_trainer import make_samples  # noqa: E402
from bench.record import alternate, report  # noqa: E402
from core.config import load_run_file  # noqa: E402
from core.megatron.rows.packing import TrainSample  # noqa: E402
from core.megatron.trainer import MegatronTrainer  # noqa: E402
from core.pretrained.locate import locate  # noqa: E402
from core.pretrained.transformers_import import import_transformers  # noqa: E402

PROMPT_TOKENS, RESPONSE_TOKENS, GROUPS, GROUP_SIZE = 17, 12, 8, 8
REPETITIONS = 5


class Peer:
    """A plain transformers training step."""

    def __init__(self, model_dir: Path, samples: list[TrainSample], lr: float) -> None:
        self.model: Any = import_transformers().AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=lr, weight_decay=0.0)
        self.tokens = torch.tensor([[*s.prompt_tokens, *s.response_tokens] for s in samples])
        self.advantages = torch.tensor([s.advantage for s in samples])

    def step(self) -> None:
        """Forward, on-policy loss, backward, clip, AdamW."""
        logits = self.model(self.tokens[:, :-1]).logits[:, PROMPT_TOKENS - 1 :]
        logprobs = torch.log_softmax(logits, -1).gather(-1, self.tokens[:, PROMPT_TOKENS:, None])[..., 0]
        loss = -(torch.exp(logprobs - logprobs.detach()) * self.advantages[:, None]).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()


def main() -> None:
    """Measure, print, write results/update.json."""
    one_rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    os.environ.update(one_rank)
    config = load_run_file(ROOT / "examples" / "smollm2-arithmetic.yaml")
    model_dir = locate(config.model.path)
    samples = make_samples(GROUPS * GROUP_SIZE, PROMPT_TOKENS, RESPONSE_TOKENS, group_size=GROUP_SIZE)
    trainer = MegatronTrainer(config, modelcfg.load("smollm2-135m"), model_dir, "cpu")
    peer = Peer(model_dir, samples, config.train.lr)
    seconds = alternate({"ebbtide": lambda: trainer.update(samples), "transformers": peer.step}, REPETITIONS)
    ratio = statistics.median(seconds["transformers"]) / statistics.median(seconds["ebbtide"])
    report("update", seconds, peer_over_ours=ratio, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
