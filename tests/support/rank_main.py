"""One trainer rank of tests: runs the cases of each folder that it is told on stdin, and writes down what came out.

Arguments: the file in which the ranks meet. Environment: RANK, WORLD_SIZE. Ends with its stdin. See `ranks.py`.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import multiprocessing
import os
import random
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.distributed as dist

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

TRAINER_PARTS = (
    "masters",
    "moments",
    "parameters",
    "gradients",
    "reference",
    "base",
    "critic",
)  # core's own, once it is imported


def computed(metrics: Mapping[str, float]) -> dict[str, float]:
    """Those of an update that its samples determine: the memory of a process differs from one run to the next."""
    return {name: value for name, value in metrics.items() if "memory" not in name}


def make_samples(seed: int, num_groups: int = 3) -> list[Any]:
    """Groups of 2 to 5 responses of 1 to 14 tokens; a masked response and partly masked ones among them."""
    from core.samples import TrainSample

    rng = random.Random(seed)
    samples = []
    for group in range(num_groups):
        prompt = [rng.randrange(3, 500) for _ in range(rng.randrange(1, 20))]
        for index in range(2 + (group + seed) % 4):
            response = [rng.randrange(3, 500) for _ in range(rng.randrange(1, 15))]
            mask = [0 if group == 1 and index == 1 else int(rng.random() < 0.9) for _ in response]
            engine = [rng.gauss(-6, 0.3) for _ in response]
            advantage = rng.gauss(0, 1)
            samples.append(TrainSample(group, prompt, response, mask, advantage, engine, reward=advantage))
    return samples


def make_config(case: dict[str, Any]) -> Any:
    """Every loss term at once, so that every path carries gradient; the case overrides sections."""
    from core.config.schema import RunConfig

    sections: dict[str, dict[str, Any]] = {
        "model": {"path": case["model"], "dtype": "float32"},
        "data": {},
        "rollout": {"num_rollout": 8, "rollout_batch_size": 3, "n_samples_per_prompt": 4},
        "algorithm": {"kl_loss_coef": 0.1, "entropy_coef": 0.02},
        "critic": {},
        "train": {
            "global_batch_size": 6,
            "num_steps_per_rollout": 2,
            "lr": 2e-3,
            "lr_schedule": "cosine",
            "adam_eps": 1e-4,  # Adam blows rounding noise in vanishing gradients up to full steps if this is tiny
        },
        "placement": {"collective_timeout_s": 60.0},
    }
    for section, changes in case.get("config", {}).items():
        sections[section] |= changes
    return RunConfig.model_validate(sections)


def run_case(case: dict[str, Any]) -> list[Any]:
    """Build a trainer, act, and return what each action gave."""
    import modelcfg
    from core.megatron.state import streamed
    from core.megatron.trainer import MegatronTrainer

    model_dir = Path(case["model"])
    shape = modelcfg.from_hf(json.loads((model_dir / "config.json").read_text()))
    config = make_config(case)
    with mock.patch.object(streamed, "PIECE", case.get("piece", streamed.PIECE)):
        is_streamed = config.train.optimizer_state == "streamed"
        trainer = MegatronTrainer(config, shape, model_dir, "cpu", streamed=is_streamed)
    try:
        return [act(trainer, *([action] if isinstance(action, str) else action)) for action in case["actions"]]
    finally:
        trainer.close()


def act(trainer: Any, verb: str, *arguments: Any) -> Any:
    """One action. The arguments of each verb are those of the code below; the verbs of LOOK take none."""
    if verb == "update":
        result = trainer.update(make_samples(*arguments))
        found = {"metrics": computed(result.metrics), "logprobs": result.logprobs, "logprobs_ref": result.logprobs_ref}
        return found if result.advantages is None else {**found, "advantages": result.advantages}
    if verb == "update_critic":  # with what only a critic's update says
        result = trainer.update(make_samples(*arguments))
        values = trainer._critic.values(make_samples(*arguments))
        found = {"metrics": computed(result.metrics), "logprobs": result.logprobs, "logprobs_ref": result.logprobs_ref}
        return {**found, "advantages": result.advantages, "values": values}
    if verb == "update_flat":  # groups 1 and 2 have next to no advantage, or none at all
        seed, advantage = arguments
        samples = [replace(s, advantage=advantage) if s.group else s for s in make_samples(seed)]
        result = trainer.update(samples)
        return {"metrics": computed(result.metrics), "logprobs": result.logprobs}
    if verb == "update_stale":  # of samples that older weights made, with an advantage for each token
        seed, spread = arguments
        samples = [
            replace(
                s, advantage=[s.advantage + spread * i for i in range(len(s.loss_mask))], logprobs_old=s.logprobs_engine
            )
            for s in make_samples(seed)
        ]
        return computed(trainer.update(samples).metrics)
    if verb == "learn_from":
        return learn_from(trainer, *arguments)
    if verb == "log_probs_of":
        return trainer.log_probs(samples_of(Path(arguments[0])))
    if verb == "update_batch":
        return update_batch(trainer, *arguments)
    if verb == "replayed":
        return replayed(trainer, make_samples(*arguments))
    if verb == "replayed_from_engine":
        seed = arguments[0]
        return replayed(trainer, with_experts(make_samples(seed), trainer.shape, seed))
    if verb == "replayed_from_store":
        return replayed(trainer, stored(Path(arguments[0])))
    if verb == "log_probs":
        return trainer.log_probs(make_samples(*arguments))
    if verb == "buckets":
        return [
            [(name, t.numel(), float(t.double().sum())) for name, t in b] for b in trainer.named_buckets(*arguments)
        ]
    if verb == "buckets_alone":  # with nothing but the parameters on the device, and what stays there
        max_bytes, staying = arguments[0], frozenset(arguments[1] if arguments[1:] else [])
        trainer.memory.reserve(staying)
        trainer.memory.shrink_to(staying)
        trainer.memory.grow_to(staying | {"parameters"})
        held = set(trainer.memory.held())
        assert held == {"parameters"} | {part for part in staying if trainer.memory.regions[part].num_bytes}, held
        assert not [part for part in staying if trainer.memory.regions[part]._host], "memory that nobody wants"
        buckets = act(trainer, "buckets", max_bytes)
        trainer.memory.shrink_to(staying)
        trainer.memory.grow_to(frozenset(TRAINER_PARTS))
        return buckets
    if verb in LOOK:
        return LOOK[verb](trainer)
    if verb == "dump_gradients":
        return dump_gradients(trainer, Path(arguments[0]))
    if verb == "save_beside":  # and what comes after the directory is done while the files are written
        from tests.support.saving import save_beside

        meanwhile = partial(act, trainer, *arguments[1:]) if arguments[1:] else _nothing
        return save_beside(trainer, Path(arguments[0]), meanwhile)
    if verb == "export_beside":  # likewise
        from tests.support.saving import export_beside

        saved, directory, *others = arguments
        meanwhile = partial(act, trainer, *others) if others else _nothing
        return export_beside(trainer, Path(saved), Path(directory), meanwhile)
    if verb == "dump":
        return dump(trainer, Path(arguments[0]))
    return getattr(trainer, verb)(Path(arguments[0]))


def _nothing() -> None:
    pass


def samples_of(file: Path) -> list[Any]:
    """Samples that count wholly, of a JSON list of [group, prompt tokens, response tokens]."""
    from core.samples import TrainSample

    return [
        TrainSample(group, prompt, response, [1] * len(response), 1.0, [0.0] * len(response))
        for group, prompt, response in json.loads(file.read_text())
    ]


def stale_samples(seed: int) -> list[Any]:
    """Those of `make_samples` with log-probs of an older policy, and of a reference, some way off the engine's."""
    rng = random.Random(seed)

    def near(values: list[float]) -> list[float]:
        return [value + rng.gauss(0, 0.3) for value in values]

    made = make_samples(seed)
    return [replace(s, logprobs_old=near(s.logprobs_engine), logprobs_ref=near(s.logprobs_engine)) for s in made]


def learn_from(trainer: Any, seed: int, file: str, backwards: bool) -> dict[str, Any]:
    """The update of stale samples, and in the file its gradients, under HuggingFace names; zeros of what is frozen. No
    step is made.

    Args:
        backwards: give the trainer the samples in the opposite order.
    """
    from safetensors.torch import save_file

    from core.megatron.state.gather import gathered
    from core.megatron.state.names import export_entries

    def keep() -> float:
        gradients = {name: p.main_grad if p.requires_grad else torch.zeros_like(p) for name, p in parameters.items()}
        entries = export_entries(trainer.shape, trainer.layout.stages, trainer.layout.ep_size)
        entries = [entry for entry in entries if not entry.fixed]
        found = gathered(entries, gradients, trainer.shape, trainer.layout, 2**40)
        whole = {name: tensor.clone().contiguous() for name, tensor in found}
        if dist.get_rank() == 0:
            save_file(whole, file)
        optimizer.chain.prepare_grads()
        return float(optimizer._norm())

    parameters, optimizer = trainer.weights.parameters, trainer.policy.optimizer
    way = -1 if backwards else 1
    with mock.patch.object(optimizer, "step", keep):
        result = trainer.update(stale_samples(seed)[::way])
    return {"metrics": computed(result.metrics), "logprobs": result.logprobs_policy[::way]}


def update_batch(trainer: Any, seed: int, shift: float, on_policy: bool) -> dict[str, Any]:
    """An update by a batch of samples whose engine gave each token this much more log-prob than the trainer does."""
    from core.algorithm.batch import Batch
    from core.samples import Prompt, Sample, Status

    made = make_samples(seed)
    engine = [[value + shift for value in values] for values in trainer.log_probs(made)]
    samples = [
        Sample(
            group=one.group,
            index=index,
            prompt=Prompt(0, "", tuple(one.prompt_tokens), None),
            response_tokens=list(one.response_tokens),
            logprobs_engine=values,
            status=Status.COMPLETED,
            weight_version="v",
            loss_mask=list(one.loss_mask),
            reward=0.0,
        )
        for index, (one, values) in enumerate(zip(made, engine, strict=True))
    ]
    batch = Batch(samples, [one.advantage for one in made], on_policy)
    result = trainer.update(batch.train_samples())
    found = {"metrics": computed(result.metrics), "old": result.logprobs, "engine": engine}
    return {**found, "after": trainer.log_probs(made)}


def with_experts(samples: list[Any], shape: Any, seed: int) -> list[Any]:
    """The samples with random experts of an engine: those of a prompt agree; some know a part of theirs, or nothing."""
    numbers, prompts = np.random.default_rng(seed), dict[int, Any]()

    def experts(tokens: int) -> Any:
        """[tokens, L x k], in each layer k that differ."""
        order = numbers.random((tokens, shape.num_layers, shape.num_experts)).argsort(axis=2)
        chosen = order[:, :, : shape.experts_per_token]
        return chosen.reshape(tokens, shape.num_layers * shape.experts_per_token).astype("uint8")

    made = []
    for place, sample in enumerate(samples):
        prompt = prompts.setdefault(sample.group, experts(len(sample.prompt_tokens)))
        whole = np.concatenate([prompt, experts(len(sample.response_tokens) - 1)])
        known = None if place % 4 == 3 else whole[: len(whole) - 2 * (place % 4 == 2)]
        made.append(replace(sample, routing=known))
    return made


def stored(file: Path) -> list[Any]:
    """The samples of a step file, as the trainer was given them, with the advantages of then."""
    from core.algorithm.batch import Batch
    from core.trajectory import read_step, stored_samples

    record = read_step(file)
    return Batch(stored_samples(record), record.advantage.tolist()).train_samples()


def replayed(trainer: Any, samples: list[Any]) -> dict[str, Any]:
    """An update, and of its optimiser steps whether the experts are those that are known, and the routers' own."""
    from core.megatron.layers.routing import RowRouting
    from core.megatron.policy.policy import noting as noting_experts
    from core.megatron.rows.computed import with_gradient
    from core.megatron.rows.routing import NotedExperts

    policy, settle = trainer.policy, RowRouting.settle
    step, same, own, differing = policy._step, list[bool](), list[bool](), torch.zeros(1)

    def counted(row: RowRouting, layer: int, choice: torch.Tensor) -> torch.Tensor:
        chosen = settle(row, layer, choice)
        differing.add_((chosen.sort().values != choice.sort().values).sum())
        return chosen

    def noting(samples: Any, routings: Any, *, stays: bool) -> Any:
        noted = NotedExperts(trainer.shape, trainer.layout.control)
        policy.training_pass = partial(noting_experts, noted, trainer.device)
        differing.zero_()
        result = step(samples, routings, stays=stays)
        found = noted.of_samples(samples, with_gradient(samples, policy._loss.teaches))
        pairs = [(a, b) for a, b in zip(found, routings, strict=True) if a is not None and b is not None]
        same.append(bool(pairs) and all((a[: len(b)] == b).all() for a, b in pairs))
        dist.all_reduce(differing)
        own.append(not differing.item())
        return result

    with mock.patch.object(RowRouting, "settle", counted), mock.patch.object(policy, "_step", noting):
        result = trainer.update(samples)
    return {"metrics": result.metrics, "logprobs": result.logprobs, "same": [bool(one) for one in same], "own": own}


def dump(trainer: Any, directory: Path) -> None:
    """Write parameters and both moments as safetensors files, under HuggingFace names."""
    from safetensors.torch import save_file

    from core.megatron.state.hf import named_buckets

    states = {"exp_avg": moments(trainer, "exp_avg"), "exp_avg_sq": moments(trainer, "exp_avg_sq")}
    directory.mkdir()
    for kind, tensors in {"weights": trainer.weights.parameters, **states}.items():
        buckets = named_buckets(tensors, trainer.shape, trainer.layout, 2**40, fixed=False)
        save_file({name: t.detach().contiguous() for bucket in buckets for name, t in bucket}, directory / kind)


def dump_gradients(trainer: Any, file: Path) -> None:
    """Write the gradients of the log-probs of some samples, added up, of what is trained, under HuggingFace names."""
    from safetensors.torch import save_file

    from core.megatron.model import forward_row
    from core.megatron.rows.packing import pack
    from core.megatron.state.adapters import adapter_entries
    from core.megatron.state.gather import gathered
    from core.megatron.state.names import export_entries

    model: Any = trainer.policy.optimizer.model.train()
    trainer.policy.optimizer.zero_grad()
    forward_row(model, pack(make_samples(0), 256)[0][0], "cpu")[0].sum().backward()
    gradients = {name: p.main_grad for name, p in trainer.weights.parameters.items() if p.requires_grad}
    lora = trainer.config.train.lora
    entries = adapter_entries(trainer.shape, lora) if lora else export_entries(trainer.shape)
    found = gathered(entries, gradients, trainer.shape, trainer.layout, 2**40)
    save_file({name: tensor.clone().contiguous() for name, tensor in found}, file)


def moments(trainer: Any, key: str) -> dict[str, torch.Tensor]:
    """Adam's `exp_avg` or `exp_avg_sq` of every parameter, in its shape. Only where one rank holds all of them."""
    (adam,), parameters = trainer.policy.optimizer.adams, trainer.weights.parameters
    if hasattr(adam, "_get_main_param_and_optimizer_states"):  # the distributed optimiser works on flat views
        found = {name: adam._get_main_param_and_optimizer_states(p)[key] for name, p in parameters.items()}
    else:
        found = {name: adam.optimizer.state[p][key] for name, p in parameters.items()}
    return {name: tensor.view(parameters[name].shape) for name, tensor in found.items()}


def split_parameters(trainer: Any) -> list[str]:
    """Names of the parameters that Megatron takes for shards."""
    return [name for name, p in trainer.weights.parameters.items() if getattr(p, "tensor_model_parallel", False)]


def steps_are_apart(trainer: Any) -> bool:
    """Whether every parameter has a step tensor of its own."""
    states = [state for adam in trainer.policy.optimizer.adams for state in adam.optimizer.state.values()]
    return len({state["step"].data_ptr() for state in states}) == len(states)


def decay_everything(trainer: Any) -> None:
    """Let decay reach norms and biases too, as in checkpoints of earlier versions."""
    for group in trainer.policy.optimizer.chain.param_groups:
        group["weight_decay"] = trainer.config.train.weight_decay


def decays(trainer: Any) -> list[tuple[float, float]]:
    """What Megatron multiplies each group's decay by, and the decay it has."""
    return sorted((group["wd_mult"], group["weight_decay"]) for group in trainer.policy.optimizer.chain.param_groups)


def spoil(trainer: Any) -> None:
    """Put a NaN into the weights."""
    with torch.no_grad():
        list(trainer.weights.parameters.values())[-1].view(-1)[0] = float("nan")


def spoil_critic(trainer: Any) -> None:
    """Let the critic find a NaN in its next gradient; its values are finite, as advantages have to be."""
    trainer._critic.optimizer._norm = lambda: float("nan")


def sums_over_one_rank(trainer: Any) -> int:
    """How many sums an update asks of groups of one rank, control traffic aside: NCCL would connect each to itself."""
    asked, real = [], dist.all_reduce

    def noted(tensor: Any, op: Any = dist.ReduceOp.SUM, group: Any = None, async_op: bool = False) -> Any:
        asked.append(group)
        return real(tensor, op, group, async_op)

    with mock.patch.object(dist, "all_reduce", noted):
        trainer.update(make_samples(0))
    assert trainer.layout.control in asked
    return sum(group is not trainer.layout.control and dist.get_world_size(group) == 1 for group in asked)


def aliases_bring_gradients(trainer: Any) -> list[float]:
    """Of each parameter the gradient's norm, and how far that of a backward pass under other names is from it."""
    from core.megatron.graphs.row_graphs import _call, add_gradients, alias
    from core.megatron.model import forward_row
    from core.megatron.rows.packing import pack

    model: Any = trainer.policy.optimizer.model.train()
    row = pack(make_samples(0), 256)[0][0]
    gradients = [parameter.main_grad for parameter in model.parameters()]
    trainer.policy.optimizer.zero_grad()
    forward_row(model, row, "cpu")[0].sum().backward()
    wanted = [gradient.clone() for gradient in gradients]
    trainer.policy.optimizer.zero_grad()
    leaves = {name: alias(parameter) for name, parameter in model.named_parameters()}
    logprobs, _ = forward_row(partial(_call, model, leaves), row, "cpu")
    add_gradients([logprobs], list(leaves.values()), [torch.ones_like(logprobs)])
    return [float(x) for a, b in zip(wanted, gradients, strict=True) for x in (a.norm(), (a - b).abs().max())]


def parallel_output(trainer: Any) -> bool:
    """Whether logits stay split over the vocabulary."""
    return bool(trainer.policy.optimizer.model.module.parallel_output)


def park(trainer: Any) -> Any:
    """Park everything, look what is left on the device, bring everything back."""
    held = trainer.memory.held()
    storages = {part: [s.nbytes() for s in region._storages] for part, region in trainer.memory.regions.items()}
    trainer.memory.shrink_to(frozenset())
    left = sum(s.nbytes() for region in trainer.memory.regions.values() for s in region._storages)
    trainer.memory.grow_to(frozenset(TRAINER_PARTS))
    again = {part: [s.nbytes() for s in region._storages] for part, region in trainer.memory.regions.items()}
    assert again == storages
    return [sorted(held), left]


def aliases(trainer: Any) -> bool:
    """Whether parameters, gradients and moments still lie in the storages that are parked."""
    regions = {name: {s._cdata for s in region._storages} for name, region in trainer.memory.regions.items()}
    parameters = list(trainer.weights.parameters.values())
    states = [state for adam in trainer.policy.optimizer.adams for state in adam.optimizer.state.values()]
    moments = [state[key] for state in states for key in ("exp_avg", "exp_avg_sq")]

    def inside(tensors: Any, part: str) -> bool:
        return all(t.untyped_storage()._cdata in regions[part] for t in tensors)

    gradients = [p.main_grad for p in parameters]
    return inside(parameters, "parameters") and inside(gradients, "gradients") and inside(moments, "moments")


def checksums(trainer: Any) -> list[str]:
    """Of every parameter on this rank, summed over ranks so that all agree."""
    sums = torch.stack([p.detach().double().abs().sum() for p in trainer.weights.parameters.values()])
    total = sums.sum()
    dist.all_reduce(total)
    return [total.item().hex()]


def off_plan(trainer: Any) -> dict[str, Any]:
    """What the planner counts otherwise than this rank has it: nothing, or [planned, found] by name."""
    from core.planner import trainer as planner
    from modelcfg.adapters import adapter_parameters
    from modelcfg.chosen import chosen_parameters
    from modelcfg.shards import rank_parameters, value_parameters

    layout, config, shape = trainer.layout, trainer.config, trainer.shape
    split = (layout.tp_size, layout.stages, layout.pp_rank, layout.ep_size, layout.etp_size)
    parameters = rank_parameters(shape, *split)
    chosen = chosen_parameters(shape, config.train.choice, *split).trained
    held = {name: p for name, p in trainer.weights.parameters.items() if "adapters" not in name}
    trained, lora = {n: p.numel() for n, p in trainer.weights.parameters.items() if p.requires_grad}, config.train.lora
    adapters = (
        adapter_parameters(shape, lora.rank, lora.targets, layout.tp_size, layout.stages, layout.pp_rank)
        if lora
        else {}
    )
    streamed = config.train.optimizer_state == "streamed"
    parts = planner.part_bytes(config, shape, "cpu", layout.pp_rank, layout.dp_rank, streamed)
    host = planner.host_copy_bytes(config, shape, "cpu", parts, streamed=streamed)
    if streamed:
        host += planner.streamed_bytes(config, shape, "cpu", layout.pp_rank, layout.dp_rank).host
    found = {name: region.num_bytes for name, region in trainer.memory.regions.items()}
    others, critic = list[Any](), list[Any]()
    if trainer._critic is not None:
        planned = value_parameters(shape, *split)
        others, critic = list(planned.items()), [(n, p.numel()) for n, p in trainer._critic.parameters.items()]
    pairs = {
        "order": [list(parameters), list(held)],
        "parameters": [parameters, {name: p.numel() for name, p in held.items()}],
        "trained": [list((adapters or chosen).items()), list(trained.items())],
        "critic": [others, critic],
        "host": [host, trainer.memory.host_bytes],
        **{f"{part} bytes": [parts[part], found[part]] for part in TRAINER_PARTS},
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def kept(trainer: Any) -> list[int]:
    """Bytes that autograd was given to keep in an update on all ranks, recipes aside, and tokens of the rows."""
    from core.megatron.layers.made_again import LayerOutputs

    bytes_kept, tokens, learn, pack = 0, 0, trainer.policy.training_pass, LayerOutputs.pack

    def counted(saved: Any) -> Any:
        nonlocal bytes_kept
        bytes_kept += saved.nbytes if isinstance(saved, torch.Tensor) else 0
        return saved

    def learning(model: Any, row: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal tokens
        tokens += len(row.tokens)
        return learn(model, row, *arguments, **options)

    trainer.policy.training_pass = learning
    with (
        mock.patch.object(LayerOutputs, "pack", lambda outputs, saved: counted(pack(outputs, saved))),
        torch.autograd.graph.saved_tensors_hooks(counted, lambda saved: saved),
    ):
        trainer.update(make_samples(0))
    of_all = torch.tensor(bytes_kept)
    dist.all_reduce(of_all, group=trainer.layout.control)
    return [int(of_all), tokens]


MOST_THREADS = 80  # of one trainer's process groups at the most, three each, and of torch
HELD = "something holds the process groups of a closed trainer, whose threads stay awake"
LOOK = {
    "kept": kept,
    "park": park,
    "off_plan": off_plan,
    "aliases": aliases,
    "checksums": checksums,
    "split_parameters": split_parameters,
    "steps_are_apart": steps_are_apart,
    "decay_everything": decay_everything,
    "decays": decays,
    "spoil": spoil,
    "spoil_critic": spoil_critic,
    "parallel_output": parallel_output,
    "sums_over_one_rank": sums_over_one_rank,
    "aliases_bring_gradients": aliases_bring_gradients,
    "children": lambda _: [str(child) for child in multiprocessing.active_children()],
}


def run_cases(folder: Path, rank: int) -> None:
    """Run `cases.json`, write `rankN.json` as a whole."""
    results: dict[str, Any] = {}
    for name, case in json.loads((folder / "cases.json").read_text()).items():
        try:
            results[name] = {"results": run_case(case)}
        except Exception as error:
            results[name] = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        gc.collect()  # a trainer is full of circles
        if (threads := len(os.listdir("/proc/self/task"))) > MOST_THREADS:
            results[name] = {"error": f"{threads} threads are left", "traceback": f"{threads} threads are left: {HELD}"}
    dist.barrier()
    part = folder / f"rank{rank}.part"
    part.write_text(json.dumps(results))
    part.rename(folder / f"rank{rank}.json")


def main(arguments: Sequence[str]) -> None:
    faulthandler.register(signal.SIGUSR1)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = dist.FileStore(arguments[0], size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=600))
    import core.megatron.trainer  # noqa: F401

    gc.freeze()  # modules, which no collection need look through
    for line in sys.stdin:
        run_cases(Path(line.rstrip("\n")), rank)


if __name__ == "__main__":
    main(sys.argv[1:])
