"""Responses that grow over several steps: nothing lost, nothing twice, and each what it would have been at once."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from core.algorithm.batch import make_batch
from core.config.sections.rollout import RolloutConfig
from core.data import PromptSource
from core.engines.roster import Engine
from core.loop.carried_file import FILE, read_carried, write_carried
from core.loop.state import LoopState
from core.loop.step_requests import TrainRequests, weight_version
from core.processes import keys
from core.reward import RewardInput, Score
from core.rollout import rollout as rollout_module
from core.rollout import step_groups
from core.rollout.carried import Carried, Origin
from core.rollout.group_filter import GroupFilter
from core.rollout.rollout import PauseAsked, Rollout
from core.rollout.sample_bytes import DamagedSamples, pack, unpack
from core.samples import Prompt, Sample, Status
from core.sglang.errors import EngineDied
from core.sglang.generation import Generation, GroupRequest

NUM_ROWS, TRAINED, DRAWN, GROUP, LONGEST, AT_A_TIME, MAX_AGE = 37, 4, 10, 3, 40, 6, 3
SHAPE = {"num_rollout": 200, "rollout_batch_size": TRAINED, "n_samples_per_prompt": GROUP, "seed": 5}
CARRY = {"over_sampling_batch_size": DRAWN, "carry_over_tokens": AT_A_TIME, "carry_over_steps": MAX_AGE}
PROMPTS = [Prompt(row, f"row {row}", (row,), str(row)) for row in range(NUM_ROWS)]


def whole_response(seed: int) -> list[int]:
    """What the stand-in of a model says with this seed: mostly short, and cut off at the limit at times."""
    rng = random.Random(seed)
    length = min(LONGEST + 5, int(rng.expovariate(1 / 9)) + 1)
    return [1000 * (seed % 1000) + place for place in range(length)]


@dataclass
class StandIn:
    """An engine: the tokens depend on seed and place alone, the log-probs on the weights. Dies at random requests."""

    deaths: random.Random | None = None
    version: str = ""
    num_tokens: int = 0
    most_tokens_of_one: int = 0

    async def generate_groups(self, groups: Sequence[GroupRequest]) -> list[list[Generation]]:
        if self.deaths is not None and self.deaths.random() < 0.15:
            raise EngineDied("its process is gone")
        return [[self._one(list(group.prompt_tokens[1:]), params) for params in group.params] for group in groups]

    def _one(self, begun: list[int], params: Any) -> Generation:
        whole = whole_response(params.seed)
        assert whole[: len(begun)] == begun, "it goes on where it stood"
        new = whole[len(begun) : len(begun) + params.max_response_tokens]
        status = Status.COMPLETED if begun + new == whole else Status.TRUNCATED
        self.num_tokens += len(new)
        self.most_tokens_of_one = max(self.most_tokens_of_one, len(new))
        return Generation(new, [-float(self.version.removeprefix("step")) - 1] * len(new), status, self.version)

    def abort(self) -> None:
        pass


@dataclass
class Engines:
    """Stand-ins in place of a roster, the sync, the tokenizer and the rewards."""

    clients: list[StandIn]
    engines: list[Any] = field(default_factory=list)
    num_deaths: int = 0
    num_scored: int = 0

    def __post_init__(self) -> None:
        self.engines = [Engine(str(number), None, one) for number, one in enumerate(self.clients)]  # type: ignore[arg-type]

    def alive(self) -> list[Any]:
        return [engine for engine in self.engines if engine.alive]

    def mark_dead(self, engine: Any, _reason: EngineDied) -> None:
        engine.alive = False
        self.num_deaths += 1

    def await_restarted(self) -> None:
        for engine in self.engines:
            engine.alive = True

    def push(self, version: str) -> bool:
        for client in self.clients:
            client.version = version
        return True

    def decode(self, tokens: Sequence[int]) -> str:
        return ",".join(map(str, tokens))

    def submit(self, sample: RewardInput) -> Future[Score]:
        """Samples of every third row get one reward."""
        self.num_scored += 1
        done: Future[Score] = Future()
        done.set_result(Score(0.0 if sample.row % 3 == 0 else float(sample.index)))
        return done


class Store(dict[str, Any]):
    """What claims and a pause are told through."""

    lock = threading.Lock()

    def add(self, key: str, count: int) -> int:
        with self.lock:
            self[key] = self.get(key, 0) + count
            return int(self[key])

    def set(self, key: str, value: str) -> None:
        self[key] = value


@dataclass
class Run:
    """Steps of a run, and what became of every row that it drew."""

    folder: Path
    config: RolloutConfig
    engines: Engines
    filters: bool = False
    state: LoopState = field(default_factory=LoopState)
    trained: list[list[Sample]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)  # positions of rows that were trained
    rejected: list[int] = field(default_factory=list)
    metrics: list[dict[str, float]] = field(default_factory=list)
    attempts: int = 0

    def attempt(self, num_steps: int, *, pause_at: int = -1, store: Any = None) -> None:
        """Go on from the state for a number of steps, with a store and a rollout of its own."""
        self.attempts += 1
        store = Store() if store is None else store
        nobody: Any = self.engines
        chosen_by = GroupFilter(self.config, max_failed_share=0.0, timeout_s=1.0) if self.filters else None
        rollout = Rollout(store, nobody, nobody, nobody, nobody, 16, len(nobody.engines), group_filter=chosen_by)
        requests = TrainRequests(self.config, PromptSource(PROMPTS, 0, shuffle=True, seed=3), (2,))
        for _ in range(num_steps):
            step = self.state.next_step
            self.engines.push(weight_version(step))
            if step == pause_at:
                store.set(keys.PAUSE_ASKED, "stopped")
                self.engines.clients[0].deaths = Always()
            made = rollout.generate(requests(self.state, weight_version(step)))
            self.trained.append(rollout.settle(made))
            groups = {sample.group for sample in self.trained[-1]}
            self.places += [made.origins[group].position for group in sorted(groups)]
            out = {group for group, verdict in made.verdicts.items() if verdict.reason} - groups
            self.rejected += [made.origins[group].position for group in sorted(out)]
            self.metrics.append(rollout.take_counts())
            self.state = self.state.after(made)

    def save_and_load(self) -> None:
        """What a checkpoint keeps of the state."""
        folder = self.folder / f"checkpoint{self.attempts}"
        folder.mkdir(parents=True)
        write_carried(folder, self.state.carried)
        self.state = LoopState(**self.state.to_dict(), carried=read_carried(folder))


class Always(random.Random):
    def random(self) -> float:
        return 0.0


@pytest.fixture(autouse=True)
def one_rank(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def a_run(folder: Path, *, deaths: int | None = None, filters: bool = False, **keys_of_rollout: Any) -> Run:
    clients = [StandIn(random.Random(deaths + number) if deaths is not None else None) for number in range(2)]
    by = {"filter": "nonzero_std", "filter_rounds": 3} if filters else {}
    config = RolloutConfig(**{**SHAPE, "max_response_tokens": LONGEST, **CARRY, **by, **keys_of_rollout})
    return Run(folder, config, Engines(clients), filters)


def shown(run: Run) -> list[list[tuple[Any, ...]]]:
    """All that is trained, but for who made it."""
    kept = ("group", "index", "response_tokens", "logprobs_engine", "loss_mask", "status", "weight_version", "reward")
    return [
        [(*(getattr(one, name) for name in kept), one.prompt.row, one.seed, list(one.turns)) for one in step]
        for step in run.trained
    ]


def versions(sample: Sample) -> list[str]:
    """Of each token."""
    if not sample.turns:
        return [sample.weight_version] * len(sample.response_tokens)
    assert [(one.start, one.role) for one in sample.turns[1:]] == [(one.end, "assistant") for one in sample.turns[:-1]]
    return [one.weight_version for one in sample.turns for _ in range(one.end - one.start)]


@pytest.mark.parametrize("filters", [False, True], ids=["all", "filtered"])
def test_a_hundred_steps_with_engine_deaths_and_a_requeue_lose_nothing_and_train_nothing_twice(
    filters: bool, tmp_path: Path
) -> None:
    run = a_run(tmp_path, deaths=1, filters=filters)
    run.attempt(40)
    with pytest.raises(PauseAsked):
        run.attempt(20, pause_at=52)
    assert run.state.next_step == 52
    for client in run.engines.clients:
        client.deaths = random.Random(9)
    run.save_and_load()
    run.attempt(48)
    assert run.engines.num_deaths > 50

    carried = [one.origin.position for one in run.state.carried]
    assert sorted(run.places + run.rejected + carried) == list(range(run.state.data_position))
    assert [len({sample.group for sample in step}) for step in run.trained] == [TRAINED] * 100
    assert bool(run.rejected) is filters
    for number, step in enumerate(run.trained):
        for sample in step:
            whole = whole_response(sample.seed or 0)
            assert sample.response_tokens == whole[:LONGEST]
            assert sample.status is (Status.TRUNCATED if len(whole) > LONGEST else Status.COMPLETED)
            assert sample.logprobs_engine == [-float(one.removeprefix("step")) - 1 for one in versions(sample)]
            assert sample.off_policy is (set(versions(sample)) != {f"step{number}"})
    seeds = [sample.seed for step in run.trained for sample in step]
    assert len(set(seeds)) == len(seeds) == 100 * TRAINED * GROUP

    ages = [step["rollout/carried/age_max"] for step in run.metrics]
    assert 1 < max(ages) <= MAX_AGE
    calm = a_run(tmp_path / "calm", filters=filters)
    calm.attempt(100)
    assert shown(calm) == shown(run), "deaths, a pause and a requeue change nothing of what is trained"
    assert calm.metrics == run.metrics
    assert calm.engines.num_scored == (len(run.places + run.rejected) * GROUP) + sum(
        one.reward is not None for group in calm.state.carried for one in group.samples
    ), "each sample is scored once"


class Meeting:
    """Ranks that are threads of one process: what each brings, all get, in rank order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, num_ranks: int) -> None:
        self._barrier = threading.Barrier(num_ranks, timeout=60)
        self._brought: list[list[Any]] = [[]] * num_ranks
        self._here = threading.local()
        for module in (rollout_module, step_groups):
            monkeypatch.setattr(module, "gather_lists", self.gather)
        monkeypatch.setattr(rollout_module, "any_rank", lambda flag: any(self.gather([flag])))
        monkeypatch.setattr(step_groups, "gather_samples", self.gather_samples)

    def gather(self, items: list[Any]) -> list[Any]:
        self._brought[self._here.rank] = items
        self._barrier.wait()
        found = [item for part in self._brought for item in part]
        self._barrier.wait()
        return found

    def gather_samples(self, own: list[Sample], prompts: Sequence[Prompt]) -> list[Sample]:
        return [sample for part in self.gather([pack(own)]) for sample in unpack(part, prompts)]

    def run(self, runs: Sequence[Run], num_steps: int) -> None:
        """All ranks to the end."""
        store = Store()

        def one(rank: int) -> None:
            self._here.rank = rank
            runs[rank].attempt(num_steps, store=store)

        with ThreadPoolExecutor(len(runs)) as pool:
            for done in [pool.submit(one, rank) for rank in range(len(runs))]:
                done.result()


@pytest.mark.parametrize("filters", [False, True], ids=["all", "filtered"])
def test_every_rank_decides_alike_and_as_one_rank_alone_would(
    filters: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two drivers with an engine each, which die at times: whoever makes a response, it goes on with the other too."""
    alone = a_run(tmp_path, filters=filters)
    alone.attempt(25)
    runs = [a_run(tmp_path, filters=filters, deaths=number) for number in (3, 4)]
    for one in runs:
        one.engines = Engines(one.engines.clients[:1])
    Meeting(monkeypatch, 2).run(runs, 25)
    for one in runs:
        assert shown(one) == shown(alone)
        assert one.state == runs[0].state
    assert sum(one.engines.num_deaths for one in runs) > 1
    assert [one.origin for one in runs[0].state.carried] == [one.origin for one in alone.state.carried]
    assert sum(one.engines.num_scored for one in runs) == alone.engines.num_scored


def test_no_response_holds_a_step_up_and_all_reach_the_same_end(tmp_path: Path) -> None:
    """Of ten groups the four that are done first are trained; a long response goes on in later steps."""
    run = a_run(tmp_path)
    run.attempt(1)
    assert run.engines.clients[0].most_tokens_of_one == AT_A_TIME
    longest = max(len(sample.response_tokens) for sample in run.trained[0])
    left = run.state.carried
    assert len(left) == DRAWN - TRAINED
    unfinished = [one for group in left for one in group.samples if one.reward is None]
    assert unfinished
    assert all(len(one.response_tokens) % AT_A_TIME == 0 for one in unfinished)
    assert all(len(one.response_tokens) <= -(-longest // AT_A_TIME) * AT_A_TIME for one in unfinished)
    assert run.metrics[0] == {
        "rollout/carried/groups": DRAWN - TRAINED,
        "rollout/carried/trained": 0,
        "rollout/carried/age_max": 0,
        "rollout/carried/tokens_ratio": 0,
    }
    run.attempt(1)
    assert run.state.data_position == DRAWN + TRAINED, "only what is lacking is drawn"


def test_tokens_of_older_weights_are_off_policy_or_masked(tmp_path: Path) -> None:
    run, masked = a_run(tmp_path), a_run(tmp_path / "masked", mask_carried=True)
    run.attempt(3)
    masked.attempt(3)
    mixed = [one for one in run.trained[2] if len(set(versions(one))) > 1]
    assert mixed, "some response was made by several weights"
    advantages: Any = lambda rewards, groups, valid: rewards  # noqa: E731
    assert make_batch(run.trained[0], advantages).on_policy
    assert not make_batch(run.trained[2], advantages).on_policy
    assert make_batch(masked.trained[2], advantages).on_policy
    for one, other in zip(run.trained[2], masked.trained[2], strict=True):
        assert one.response_tokens == other.response_tokens
        assert one.loss_mask == [1] * len(one.response_tokens)
        assert other.loss_mask == [int(version == "step2") for version in versions(other)]
    older = sum(0 in sample.loss_mask for sample in masked.trained[2])
    assert older > 0


def test_a_run_that_no_longer_carries_over_ends_what_it_has(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    run.attempt(2)
    left = len(run.state.carried)
    run.config = run.config.model_copy(update={"carry_over_tokens": None, "over_sampling_batch_size": None})
    run.attempt(3)
    assert left == 6
    assert len(run.state.carried) == 0
    assert sorted(run.places) == list(range(run.state.data_position))
    assert [len(step) for step in run.trained] == [TRAINED * GROUP] * 5


def test_the_file_of_a_checkpoint(tmp_path: Path) -> None:
    write_carried(tmp_path, ())
    assert not (tmp_path / FILE).exists()
    assert read_carried(tmp_path) == ()
    run = a_run(tmp_path)
    run.attempt(3)
    write_carried(tmp_path, run.state.carried)
    assert [bare(one) for one in read_carried(tmp_path)] == [bare(one) for one in run.state.carried]
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-1])
    with pytest.raises(DamagedSamples):
        read_carried(tmp_path)


def bare(carried: Carried) -> tuple[Origin, list[Sample]]:
    """A group without what its next request puts there again."""
    prompt = PROMPTS[0]
    return carried.origin, [replace(one, group=0, prompt=prompt, turns=list(one.turns)) for one in carried.samples]
