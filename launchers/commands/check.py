"""`ebbtide check`: everything that can be known of a run without starting it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import modelcfg
from common.mistake import Mistake
from core.checks import ModelFiles, check_run_file
from core.checks.dialogue import DIALOGUE, rendering
from core.checks.parallel import num_trainers
from core.checks.rows import is_of_rows
from core.checks.sections import data_sections, name_of_set
from core.checks.trial import can_be_tried, reward_trial
from core.config import RunFileError
from core.config.layout import nodes, num_engines
from core.config.paths import PACKAGE_PREFIX
from core.config.schema import RunConfig
from core.config.set_generation import generation_of
from core.config.set_rewards import places
from core.doors import PROGRAMS
from core.planner import Device
from core.samples import Prompt
from core.sandbox.sandbox import find_way
from hpc.site.schema import Site
from launchers.commands.cluster import SiteFile, load_checked_site
from launchers.commands.terminal import Overrides, RunFile, fail, say
from launchers.show.check_report import answers_text, fact, prompt_lines, prompts_text, reward_text
from launchers.show.memory_table import verdict
from launchers.submit.memory_check import warnings
from launchers.submit.site_rules import disagreements
from launchers.submit.submission import Refused, Submission, make_submission
from launchers.submit.which_gpus import on_cpu, own_gpu, own_host, site_gpu
from modelcfg import ModelShape

EXAMPLE = "ebbtide check run.yaml --set data.max_prompt_tokens=512"
WRONG = 1
MOST_ROWS = 10_000  # rendered and encoded; more would take minutes


def command(run_file: RunFile, site: SiteFile = None, overrides: Overrides = None) -> None:
    """Say what is wrong with a run, and what it will do, without starting it.

    Reads the headers of the model and every row, calls the reward on first rows in a process of its own, and shows the
    first prompt. Exit code 1: there are mistakes.
    """
    files = ModelFiles()
    try:
        config = check_run_file(run_file, overrides or [], files)
        submission = _submission(config, files, site)
    except (RunFileError, Refused) as error:
        fail(str(error), WRONG)
    mistakes = list(disagreements(submission))
    _say_run(config, files, submission)
    mistakes += [*_prompts(config, submission.shape), *_reward(config)]
    if mistakes:
        fail("\n".join(["", f"{run_file} has {_counted(len(mistakes), 'mistake')}:", *map(str, mistakes)]), WRONG)
    say("no mistakes found")


def _submission(config: RunConfig, files: ModelFiles, site_file: Path | None) -> Submission:
    site = load_checked_site(site_file)
    return make_submission(config, site, shape=files.shape(config.model), device=_device(config, site))


def _device(config: RunConfig, site: Site) -> Device | None:
    """What the run's phases have to fit into; None: GPUs of a cluster that are not known here."""
    device = None if on_cpu(config, site) else site_gpu(site) or own_gpu()
    for_here = len(nodes(config)) == 1 and config.placement.device != "cuda"
    return own_host() if device is None and for_here else device


def _say_run(config: RunConfig, files: ModelFiles, submission: Submission) -> None:
    rollout = config.rollout
    sampled = f"{rollout.rollout_batch_size} prompts × {rollout.n_samples_per_prompt} samples"
    sampled = f"{rollout.rollout_batch_size} rows to learn" if is_of_rows(config) else sampled
    say(fact("run", f"{config.name}: {_counted(rollout.num_rollout, 'step')} of {sampled}"))
    say(fact("model", _model(config, files, submission.shape)))
    say(fact("machine", _machine(config, submission)))
    if submission.memory is not None:
        say(fact("memory", verdict(submission.memory)))
    for text in warnings(submission):
        say(fact("note", text))


def _model(config: RunConfig, files: ModelFiles, shape: ModelShape | None) -> str:
    if shape is None:
        return f"{config.model.path}, whose shape is not known here"
    size = f"{shape.architecture}, {modelcfg.num_parameters(shape) / 1e6:,.1f} M parameters"
    if config.model.path.startswith(PACKAGE_PREFIX):
        return f"{size}, from {config.model.path}"
    tensors = files.tensors(config.model.path).values()
    dtypes, num_files = {one.dtype for one in tensors}, len({one.file for one in tensors})
    return f"{size}, {len(tensors):,} tensors in {_counted(num_files, 'file')}, {' and '.join(sorted(dtypes))}"


def _machine(config: RunConfig, submission: Submission) -> str:
    ranks, engines = num_trainers(config.placement), num_engines(config)
    beside = f" and {_counted(engines, 'engine')}" if engines else ", no engine"
    who = f"{_counted(ranks, 'trainer rank')}{beside}"
    if submission.device is None or submission.device.kind != "cpu" or len(nodes(config)) > 1:
        return f"{who}; GPUs: {submission.device.name if submission.device else 'of a kind that is not known here'}"
    cores = len(os.sched_getaffinity(0))
    here = f"{who} on {_counted(cores, 'core')} of this machine"
    return f"{here}: fewer trainers_per_node would be as fast" if config.placement.trainers_per_node > cores else here


def _prompts(config: RunConfig, shape: ModelShape | None) -> Iterator[Mistake]:
    """Render and encode every row, and show the first one."""
    from core.data import demonstrations, render
    from core.pretrained.locate import locate, needs_conversion

    if needs_conversion(config.model.path):
        say(fact("prompts", "not looked at, as the tokenizer comes with the first start"))
        return
    try:
        from core.pretrained.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(locate(config.model.path))
    except ModuleNotFoundError as error:
        say(fact("prompts", f"not looked at, as this machine has no {error.name}"))
        return
    vocab_size = shape.vocab_size if shape else None
    for number, (key, data) in enumerate(data_sections(config).items()):
        size = min(data.size or MOST_ROWS, MOST_ROWS)
        first_rows = data.model_copy(update={"size": size})
        try:
            prompts: Sequence[Prompt]
            if is_of_rows(config):
                split = config.rollout.rewritten_past == "split"
                prompts = demonstrations(first_rows, tokenizer, vocab_size, split=split)
            else:
                rollout = generation_of(config, name_of_set(key))
                how = rendering(rollout, data) if rollout.generate == DIALOGUE else None
                prompts = render(first_rows, tokenizer, vocab_size, how)
        except ValueError as error:
            wanted = "prompts that can be rendered and encoded"
            yield Mistake(f"{key}.prompt_key", None, str(error), wanted, "correct the row or the template")
            continue
        yield from _usable(key, prompts, data.max_prompt_tokens)
        of_all = f" (of the first {MOST_ROWS:,} rows)" if len(prompts) == MOST_ROWS else ""
        say(fact(key, prompts_text(prompts, data.max_prompt_tokens) + of_all))
        if is_of_rows(config):
            say(fact("", answers_text(prompts, config.rollout.max_response_tokens)))
        if number == 0:
            say("\n".join(prompt_lines(prompts[0])))


def _usable(key: str, prompts: Sequence[Prompt], most: int) -> Iterator[Mistake]:
    shortest = min(len(prompt.tokens) for prompt in prompts)
    if shortest > most:
        found = f"{most}, where the shortest prompt has {shortest} tokens"
        yield Mistake(f"{key}.max_prompt_tokens", None, found, "a prompt that is used", "raise it")


def _reward(config: RunConfig) -> list[Mistake]:
    if is_of_rows(config):
        return []
    if not can_be_tried(config):
        say(
            fact(
                "reward",
                f"not called, as rollout.generate {config.rollout.generate} adds to samples what a row has not",
            )
        )
        return []
    trial, mistakes = reward_trial(config)
    used = dict(places(config))
    if trial is not None and any(reward.type == PROGRAMS for reward in used.values()):
        say(fact("sandbox", f"works on this machine, by {find_way()}"))
    if trial is not None:
        own = [f"{place}: {reward.type}" for place, reward in used.items() if reward is not config.reward]
        named = ", ".join([config.reward.path or config.reward.type, *own])
        say(fact("reward", f"{named}, on the first row of {reward_text(trial)}"))
    return mistakes


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
