"""What a user's own code imports of this project: types and helpers, for the doors of a run file and for scripts.

Rewards
    RewardInput: what a reward function is called with: prompt, response, label and the rest of the row.
    ScoredSample: that with its reward: a function for `rollout.filter` is called with a list of them.
    Scorer: its type: (RewardInput) -> float.
    last_number: the last number of a text, or None.

Samples
    Prompt: one row of a data source, rendered and tokenised.
    Sample: one response with tokens, log-probs, mask and reward.
    SamplingParams: sampling settings of one request.
    Status: how a response ended.

Generation
    Task: what a generation function is called with: a prompt, and how this sample of it is sampled.
    TaskEngine: and with what it has the model speak.
    Turn: what the model said once.
    Response: what the function gives back: one training sample, or a list of them.
    Heard: what others said between two turns of the model.
    Span: a stretch of a response, and who said it.
    SampleFailed: raised by the function, with the reason.
    Environment: who answers the model in a dialogue: reset and step.
    ToolCall: what a function for `rollout.tool_format` finds in what the model said.

Strangers' programs
    run_python: runs a program in a sandbox, and says what became of it.
    Sandbox: the same with limits of one's own.
    Ran: what became of it: output, exit code, and what it had no more of.
    SandboxUnavailable: raised where there is no sandbox on a machine, with what to do.

Advantages and losses
    Advantages: what a run file's advantage_estimator is called with, and gives.
    group_advantages: the advantage of each sample over its group.
    Loss: what a run file's loss is called with, gives, and may say of itself.
    TokenInputs: what a loss gets beside the policy's log-probs.
    TrainSample: one response as the trainer needs it.

Sinks of metrics
    Sink: what a class for `logging.sinks` has: begin, step, evaluation, end.
    RunInfo: the run that a sink is told of.
    ShownSample: one response, for a sink that shows some.

Schedules
    Parts: what a run file's schedule is called with: the trainer, the rollout, …, each as far as it may be called.
    make_batch: a step's samples with their advantages; says whether they are on-policy.
    Batch: what make_batch gives.
    check_failures: refuses a step in which too many samples have no reward.
    weight_version: the name of the weights after a number of steps.
    RewardsUnavailable: raised where nobody scores; write a checkpoint, and let it pass.
    TooManyFailures: raised by check_failures; likewise.

What a run leaves
    list_steps: the steps that a run directory has records of.
    read_step: the record of one step, from its file.
    step_path: the file of one step.
    StepRecord: all samples of a step, with advantages and log-probs.

Slurm
    HetSlurmExecutor: submitit's executor, for jobs whose parts differ.
    Component: one part of such a job.
    Site: a cluster, as its site file describes it.
    load_site: reads a site file.

Anything else
    load_function: the function that `module.py:function` or `package.module:function` names.

This package holds nothing of its own, and nothing of the project imports it. A name is loaded when it is first used:
`import ebbtide` needs neither torch nor numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.algorithm.advantages import Advantages as Advantages
    from core.algorithm.advantages import group_advantages as group_advantages
    from core.algorithm.batch import Batch as Batch
    from core.algorithm.batch import TooManyFailures as TooManyFailures
    from core.algorithm.batch import check_failures as check_failures
    from core.algorithm.batch import make_batch as make_batch
    from core.algorithm.loss import Loss as Loss
    from core.algorithm.loss import TokenInputs as TokenInputs
    from core.loop.parts import Parts as Parts
    from core.loop.step_requests import weight_version as weight_version
    from core.plugins import load_function as load_function
    from core.reward import RewardsUnavailable as RewardsUnavailable
    from core.reward.last_number import last_number as last_number
    from core.reward.sample import RewardInput as RewardInput
    from core.reward.sample import ScoredSample as ScoredSample
    from core.reward.scorers import Scorer as Scorer
    from core.rollout.environment import Environment as Environment
    from core.rollout.task import Heard as Heard
    from core.rollout.task import Response as Response
    from core.rollout.task import SampleFailed as SampleFailed
    from core.rollout.task import Task as Task
    from core.rollout.task import TaskEngine as TaskEngine
    from core.rollout.task import Turn as Turn
    from core.rollout.tool_formats import ToolCall as ToolCall
    from core.samples import Prompt as Prompt
    from core.samples import Sample as Sample
    from core.samples import SamplingParams as SamplingParams
    from core.samples import Span as Span
    from core.samples import Status as Status
    from core.samples import TrainSample as TrainSample
    from core.sandbox.sandbox import Ran as Ran
    from core.sandbox.sandbox import Sandbox as Sandbox
    from core.sandbox.sandbox import run_python as run_python
    from core.sandbox.session import SandboxUnavailable as SandboxUnavailable
    from core.sinks.sink import RunInfo as RunInfo
    from core.sinks.sink import ShownSample as ShownSample
    from core.sinks.sink import Sink as Sink
    from core.trajectory.record import StepRecord as StepRecord
    from core.trajectory.store import list_steps as list_steps
    from core.trajectory.store import read_step as read_step
    from core.trajectory.store import step_path as step_path
    from hpc.executor.executor import HetSlurmExecutor as HetSlurmExecutor
    from hpc.site.files import Site as Site
    from hpc.site.files import load_site as load_site
    from hpc.slurm.component import Component as Component

_HOME = {
    "Advantages": "core.algorithm.advantages",
    "Batch": "core.algorithm.batch",
    "Component": "hpc.slurm.component",
    "Environment": "core.rollout.environment",
    "Heard": "core.rollout.task",
    "HetSlurmExecutor": "hpc.executor.executor",
    "Loss": "core.algorithm.loss",
    "Parts": "core.loop.parts",
    "Prompt": "core.samples",
    "Ran": "core.sandbox.sandbox",
    "Response": "core.rollout.task",
    "RewardInput": "core.reward.sample",
    "RewardsUnavailable": "core.reward",
    "RunInfo": "core.sinks.sink",
    "ShownSample": "core.sinks.sink",
    "Sample": "core.samples",
    "SampleFailed": "core.rollout.task",
    "SamplingParams": "core.samples",
    "ScoredSample": "core.reward.sample",
    "Sandbox": "core.sandbox.sandbox",
    "SandboxUnavailable": "core.sandbox.session",
    "Scorer": "core.reward.scorers",
    "Sink": "core.sinks.sink",
    "Site": "hpc.site.files",
    "Span": "core.samples",
    "Status": "core.samples",
    "StepRecord": "core.trajectory.record",
    "Task": "core.rollout.task",
    "TaskEngine": "core.rollout.task",
    "ToolCall": "core.rollout.tool_formats",
    "Turn": "core.rollout.task",
    "TokenInputs": "core.algorithm.loss",
    "TooManyFailures": "core.algorithm.batch",
    "TrainSample": "core.samples",
    "check_failures": "core.algorithm.batch",
    "group_advantages": "core.algorithm.advantages",
    "last_number": "core.reward.last_number",
    "list_steps": "core.trajectory.store",
    "load_function": "core.plugins",
    "load_site": "hpc.site.files",
    "make_batch": "core.algorithm.batch",
    "read_step": "core.trajectory.store",
    "run_python": "core.sandbox.sandbox",
    "step_path": "core.trajectory.store",
    "weight_version": "core.loop.step_requests",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'ebbtide' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
