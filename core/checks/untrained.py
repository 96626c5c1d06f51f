"""Runs that train nothing: a schedule that wants no trainer, engines, and something to evaluate."""

from __future__ import annotations

from collections.abc import Iterator

from common.mistake import Mistake, Wrong
from core.checks.model_files import ModelFiles
from core.checks.said import said
from core.config.paths import PACKAGE_PREFIX
from core.config.schema import RunConfig
from core.doors import SCHEDULE
from core.pretrained.quantised import QuantisedWeight

KEY = "placement.trainers"
IMPLIED = "remove it: where trainers is none, it is then"


def nothing_is_trained(config: RunConfig) -> Iterator[Mistake]:
    """Engines, sets and a schedule that says `trains = False` belong to a run without trainers; that to no other."""
    placement, saved = config.placement, config.checkpoint.save_hf
    trains = said(SCHEDULE.place(placement.schedule)).own.get("trains", True) is not False
    if placement.trainers != "none":
        if not trains:
            found = f"{placement.schedule} with {KEY} {placement.trainers}, which would hold a model for nothing"
            yield Mistake(SCHEDULE.key, None, found, f"{KEY}: none with it", f"set {KEY} to none")
        return
    if trains:
        wanted = f"a schedule without updates, which says trains = False, as {KEY} is none"
        yield Mistake(SCHEDULE.key, None, placement.schedule, wanted, f"{IMPLIED} evaluate")
    if placement.engines == "none":
        wanted = f"engines, as {KEY} is none: nobody else has the model"
        yield Mistake("placement.engines", None, "none", wanted, "remove it")
    if saved != "off":
        wanted = f"off, as {KEY} is none: the model stays as it is"
        yield Mistake("checkpoint.save_hf", None, saved, wanted, f"{IMPLIED} off")
    if not config.eval.sets:
        found, wanted = f"no eval.sets, with {KEY} none", "a set to evaluate"
        yield Mistake("eval.sets", None, found, wanted, "add one, with --data FILE or as eval.sets.NAME.path")


def engines_read_the_weights(config: RunConfig, files: ModelFiles) -> Iterator[Mistake]:
    """Engines that no trainer sends whole weights find such in the files."""
    if config.placement.trainers != "none" or config.model.path.startswith(PACKAGE_PREFIX):
        return
    try:
        tensors = files.tensors(config.model.path)
    except Wrong:  # reported by `core.checks.model.directories`
        return
    if any(isinstance(tensor, QuantisedWeight) for tensor in tensors.values()):
        found = f"{config.model.path}, whose weights are quantised, with {KEY} none"
        wanted = "whole weights, which are the trained model's: engines have nobody to send them"
        remedy = f"write such, and evaluate them: ebbtide convert {config.model.path} OUT"
        yield Mistake("model.path", None, found, wanted, remedy)
