"""What a generation function of one's own costs: rollouts of one turn by the built-in and by a user's file, in turns.

Responses have equal lengths, and all samples are in flight, so that the engine has the same work both times.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.engine_only import EngineOnly, engine_only
from bench.record import alternate, report
from core.config.sections.rollout import RolloutConfig
from core.rollout.generate import GroupGenerator
from core.rollout.own import OwnGeneration
from core.rollout.request import Request
from core.samples import Prompt, SamplingParams

OWN = """
from ebbtide import Response


async def generate(task, engine):
    return Response.of(await engine.generate(task.prompt_tokens))
"""


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="qwen3-4b")
    parser.add_argument("--groups", type=int, default=64)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--response", type=int, default=512)
    parser.add_argument("--workers", type=int, help="processes; left out: what a run takes")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--fraction", type=float, default=0.8)
    options = parser.parse_args()
    os.environ["EBBTIDE_API_KEY"] = ""
    num_samples = options.groups * options.group_size
    numbers = itertools.count()

    def rollout(engine: EngineOnly, prompts: list[Prompt], generator: GroupGenerator | None) -> None:
        def sampling(group: int, index: int) -> SamplingParams:
            return SamplingParams(options.response, seed=1000 * group + index)

        request = Request(f"bench/{next(numbers)}", prompts, options.group_size, sampling, "bench")
        made = engine.rollout(generator).generate(request)
        failures = [sample.failure for sample in made.samples if sample.failure]
        assert not failures, f"{len(failures)} samples failed: {failures[0]}"
        made_tokens = sum(len(sample.response_tokens) for sample in made.samples)
        wanted = num_samples * options.response  # random weights end some answers early, one token in a vocabulary
        assert 0.95 * wanted <= made_tokens <= wanted, f"{made_tokens} tokens, wanted {wanted}"

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "own.py"
        file.write_text(OWN)
        config = RolloutConfig(
            num_rollout=1,
            rollout_batch_size=options.groups,
            generate=f"{file}:generate",
            generate_workers=options.workers,
        )
        own = OwnGeneration(config, None, lambda _tokens: "")
        with engine_only(options.shape, slots=num_samples, fraction=options.fraction) as engine, own:
            prompts = engine.prompts(options.groups, options.prompt)
            cases = {
                "built-in": lambda: rollout(engine, prompts, None),
                "own function": lambda: rollout(engine, prompts, own),
            }
            seconds = alternate(cases, options.repetitions)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    share = medians["own function"] / medians["built-in"] - 1
    rates = {f"{name}_tokens_per_s": num_samples * options.response / value for name, value in medians.items()}
    report("own_generation", seconds, **vars(options), **rates, overhead_share=share)


if __name__ == "__main__":
    main()
