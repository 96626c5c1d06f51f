"""The section `train` of a run file."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from common.mistake import Wrong
from core.config.sections.lora import LoraConfig
from core.config.sections.section import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Section
from modelcfg.chosen import Choice


def _expressions(value: Any) -> Any:
    """One alone stands for a list of it."""
    found = (value,) if isinstance(value, str) else value
    for one in found if isinstance(found, list | tuple) else ():
        try:
            re.compile(one)
        except re.error as error:
            wanted = "regular expressions over HuggingFace's names of parameters"
            raise Wrong(f"{one!r}, which does not compile ({error})", wanted, "correct it") from error
        except TypeError:
            pass  # no text, which is another mistake
    return tuple(found) if isinstance(found, list) else found


class TrainConfig(Section):
    """Optimiser, schedule, batch sizes."""

    global_batch_size: PositiveInt = Field(description="samples per optimiser step")
    num_steps_per_rollout: PositiveInt = Field(1, description="optimiser steps per loop step")
    lr: PositiveFloat = Field(1e-6, description="learning rate after warm-up")
    min_lr: NonNegativeFloat = Field(0.0, description="linear, cosine: learning rate at the end")
    lr_schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="from lr to min_lr over the run"
    )
    lr_warmup_steps: NonNegativeInt = Field(0, description="optimiser steps from 0 to lr")
    lr_decay_steps: PositiveInt | None = Field(
        None,
        description="linear, cosine: optimiser steps, warm-up among them, until the rate is min_lr, where it stays; "
        "null: those of the run",
    )
    reset_optimizer_states: bool = Field(
        False, description="Adam's moments begin at 0 in every loop step; the learning rate goes on"
    )
    weight_decay: NonNegativeFloat = Field(
        0.0, description="decoupled, as in AdamW; not of parameters with one dimension: norms and biases"
    )
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="decay of the first moment")
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = Field(0.98, description="decay of the second moment")
    adam_eps: PositiveFloat = Field(1e-8, description="added to the root of the second moment")
    clip_grad: NonNegativeFloat = Field(1.0, description="maximum gradient norm; 0: no clipping")
    dither_masters: bool = Field(
        True,
        description="bfloat16: fp32 masters start anywhere in the interval that rounds to their weight, so that small "
        "updates show at once; off: in its middle. Not done for tied embeddings over pipeline stages",
    )
    max_tokens_per_micro_batch: PositiveInt = Field(8192, description="token budget of one packed micro-batch")
    share_prompts: bool = Field(True, description="compute the prompt of a group once for all its responses")
    cuda_graphs: bool = Field(
        True,
        description="replay small micro-batches as CUDA graphs, which keep memory: where GPUs hold everything at once, "
        "in bfloat16, without tensor, pipeline or context parallel, without recompute and frozen parameters",
    )
    use_distributed_optimizer: bool = Field(False, description="share out optimiser state over data-parallel ranks")
    optimizer_state: Literal["auto", "resident", "streamed"] = Field(
        "auto",
        description="Adam's masters and moments, 12 bytes per parameter: resident: on the device in an update; "
        "streamed: in host memory, from where they pass through the device piece by piece; auto: streamed where a GPU "
        "has no room for them",
    )
    recompute: Literal["none", "selective", "full"] = Field(
        "none",
        description="what a layer computes again in the backward pass instead of keeping it: selective: the outputs of "
        "norms and activations, which costs next to nothing; full: everything but its input",
    )
    recompute_layers: PositiveInt | None = Field(
        None, description="recompute full: number of layers to recompute in each pipeline stage; null: all of them"
    )
    recompute_inputs: Literal["device", "host"] = Field(
        "device",
        description="recompute full: where inputs of recomputed layers wait for the backward pass: device; host: "
        "page-locked host memory, to and from which they are copied while layers beside them compute. For long rows",
    )
    only: Annotated[tuple[str, ...], BeforeValidator(_expressions)] = Field(
        (),
        description="regular expressions over HuggingFace's names of parameters: those in which one is found are "
        "trained, and no others (algorithms.md); none given: all are",
    )
    freeze: Annotated[tuple[str, ...], BeforeValidator(_expressions)] = Field(
        (), description="likewise of those that are not trained; instead of `only`"
    )
    lora: LoraConfig | None = Field(
        None, description="train low-rank adapters, and leave the model's weights as they are; null: all weights"
    )
    seed: int = Field(1234, description="of the trainer's random states")

    @property
    def choice(self) -> Choice:
        """Which parameters are trained, adapters aside."""
        return Choice(self.only, self.freeze)
