"""Which GPUs a run will have, as far as that is known before it starts."""

from __future__ import annotations

import os
from dataclasses import replace

from common.memory_size import gpu_memory_bytes
from common.mistake import Wrong, show
from common.units import MIB
from core.config.schema import RunConfig
from core.planner import Device
from hpc.node.gpu_cards import DRIVER_BYTES, MIN_CAPABILITY, SHOWN, Card, capability_of, card_of, sizes_of
from hpc.node.gpus import ask_gpus
from hpc.node.host_memory import MACHINE, host_memory
from hpc.site.schema import Site

ASK_TIMEOUT_S = 10.0


def named_gpu(text: str) -> Device:
    """The GPU that `--gpu-memory` names: a size, or a card such as h100 or a100-40gb.

    Raises:
        ValueError: neither.
    """
    if card := card_of(text):
        return _of_card(card, str(card))
    if sizes := sizes_of(text):
        raise Wrong(show(text), "a card of one size", f"write {' or '.join(sizes)}")
    try:
        return Device("cuda", gpu_memory_bytes(text), "--gpu-memory")
    except Wrong as wrong:
        cards = ", ".join(dict.fromkeys(card.name.lower() for card in SHOWN))
        raise Wrong(wrong.found, f"{wrong.wanted}, or a card such as {cards}", wrong.remedy) from wrong


def site_device(config: RunConfig, site: Site) -> Device | None:
    """What the run's phases have to fit into on this site; None: CPUs, or GPUs that the site file does not tell."""
    return None if on_cpu(config, site) else site_gpu(site)


def site_gpu(site: Site) -> Device | None:
    """What the site file says; None if it does not. Of a kind that is too old its memory may be missing."""
    kind, per_node = site.gpu_type or "", site.gpus_per_node
    capability = capability_of(kind)
    if site.gpu_memory is not None:
        total = gpu_memory_bytes(site.gpu_memory)
        return Device("cuda", total, "gpu_memory of the site file", capability, per_node)
    if card := card_of(kind):
        return replace(_of_card(card, f"{card}, gpu_type of the site file"), per_node=per_node)
    too_old = capability is not None and capability < MIN_CAPABILITY
    return Device("cuda", None, f"{kind}, gpu_type of the site file", capability) if too_old else None


def own_gpu() -> Device | None:
    """The smallest of this machine; None if there is none."""
    gpus, _ = ask_gpus(os.environ.get("CUDA_VISIBLE_DEVICES"), ASK_TIMEOUT_S)
    if not gpus:
        return None
    capability = min((gpu.capability for gpu in gpus if gpu.capability is not None), default=None)
    total = min(gpu.total_mib for gpu in gpus) * MIB - DRIVER_BYTES
    return Device("cuda", total, "of this machine", capability, len(gpus))


def own_host() -> Device:
    """The memory that a run on this machine's CPUs may use."""
    return Device("cpu", host_memory().total_bytes, MACHINE)


def common_gpus() -> tuple[Device, ...]:
    """The cards that most clusters have, for a plan without a known GPU."""
    return tuple(_of_card(card, str(card)) for card in SHOWN)


def _of_card(card: Card, name: str) -> Device:
    return Device("cuda", card.total_bytes, name, card.capability)


def on_cpu(config: RunConfig, site: Site) -> bool:
    """Whether a run on this site is one without GPUs."""
    return config.placement.device == "cpu" or (config.placement.device == "auto" and site.gpus_per_node == 0)
