"""Nodes, GPUs, trainer ranks and engines."""

from __future__ import annotations

import math
from typing import Any

from launchers.moving_in.draft import Draft
from launchers.moving_in.flags import Flag, Flags, whole
from launchers.moving_in.rules.layout import layout

GPUS_PER_NODE = 8


def placement(flags: Flags, draft: Draft) -> None:
    """The section placement, and the parts of a job whose engines have nodes of their own."""
    nodes = _size(flags, draft, "actor_num_nodes", "placement.num_nodes", 1)
    gpus = _size(flags, draft, "actor_num_gpus_per_node", "placement.trainers_per_node", GPUS_PER_NODE)
    layout(flags, draft, nodes * gpus)
    together = flags.take("colocate")
    size, asked = flags.take("rollout_num_gpus_per_engine"), flags.take("rollout_num_gpus")
    if flags.look("debug_train_only"):
        return  # no engines are asked for
    wanted = max(1, whole(size.text, 1)) if size else 1
    heads = whole(flags.said("num_attention_heads"), 0)
    if together or asked is None:
        _colocated(draft, (nodes, gpus), wanted, size, together, asked, heads)
    else:
        _apart(flags, draft, (nodes, gpus), wanted, size, asked, heads)
    _engines(flags, draft)
    transport = flags.take("update_weight_transport")
    if transport:
        draft.put("placement.weight_sync", "files" if transport.text == "disk" else "auto", transport)


def _size(flags: Flags, draft: Draft, name: str, key: str, default: int) -> int:
    flag = flags.take(name)
    value = max(1, whole(flag.text, default)) if flag else default
    if flag is None and name == "actor_num_gpus_per_node":
        draft.default(key, value, "slime's default, without --actor-num-gpus-per-node; 1 here")
    elif flag is not None:
        draft.put(key, value, flag)
    return value


def _colocated(
    draft: Draft,
    trainers: tuple[int, int],
    wanted: int,
    size: Flag | None,
    together: Flag | None,
    asked: Flag | None,
    heads: int,
) -> None:
    nodes, gpus = trainers
    if together:
        draft.put("placement.engines", "colocated", together)
    if asked and whole(asked.text, 0) > nodes * gpus:
        do = "raise placement.num_nodes, or add engines on their own nodes to slurm.components"
        draft.lose(asked, "with --colocate engines are on the trainers' GPUs, and on no others", do, "speed")
    elif asked:
        draft.skip(asked, "engines are on the trainers' GPUs")
    if size:
        draft.put("placement.engine_tensor_parallel", _engine_gpus(draft, size, wanted, trainers, heads), size)
    tensor = draft.value("placement.engine_tensor_parallel", 1)
    draft.put("placement.engines_per_node", max(1, gpus // tensor), size, "GPUs of a node / engine_tensor_parallel")


def _engine_gpus(draft: Draft, size: Flag, wanted: int, there: tuple[int, int], heads: int) -> int:
    """An engine's GPUs: some of one node's, or all of several; they share out the attention heads evenly.

    Args:
        there: nodes, and GPUs of each.
    """
    (nodes, gpus), fitting = there, wanted
    if wanted > gpus and (wanted % gpus or nodes % (wanted // gpus)):
        do = "the GPUs of one node must hold the model, or there must be nodes for whole engines; ask ebbtide plan"
        draft.lose(size, f"engines over several nodes do not share out {nodes} of {gpus} GPUs", do, "memory")
        fitting = gpus
    if heads % fitting:
        fitting = math.gcd(heads, fitting)
        do = f"its weights are on {fitting} GPUs, and there are more engines; ask ebbtide plan"
        draft.lose(size, f"{heads} attention heads are not to be shared out over them", do, "memory")
    return fitting


def _apart(
    flags: Flags,
    draft: Draft,
    trainers: tuple[int, int],
    wanted: int,
    size: Flag | None,
    asked: Flag,
    heads: int,
) -> None:
    """Engines beside the trainers of one node, or on nodes of their own."""
    nodes, gpus = trainers
    per_node, total = flags.whole("num_gpus_per_node", GPUS_PER_NODE), max(1, whole(asked.text, 1))
    if nodes == 1 and gpus + total <= per_node:
        draft.put("placement.engines", "own_gpus", asked)
        draft.put("placement.engine_tensor_parallel", wanted, size)
        draft.put(
            "placement.engines_per_node", max(1, total // wanted), asked, "rollout-num-gpus / engine_tensor_parallel"
        )
        return
    apart = math.ceil(total / per_node)
    there = (math.gcd(nodes, apart) if gpus == per_node else 1, min(gpus, per_node))
    tensor = _engine_gpus(draft, size, wanted, there, heads) if size else 1
    draft.put("placement.engine_tensor_parallel", tensor, size)
    why = "the trainers' nodes have engines as well, in turns with the trainers"
    draft.put("placement.engines_per_node", max(1, gpus // tensor), size, why)
    parts: list[dict[str, Any]] = [{"role": "trainers"}]
    parts.append({"role": "engines", "nodes": apart, "engines_per_node": max(1, per_node // tensor)})
    draft.put("slurm.components", parts, asked)


def _engines(flags: Flags, draft: Draft) -> None:
    running, sent = flags.take("sglang_max_running_requests"), flags.take("sglang_server_concurrency")
    flag = running or sent
    if flag:
        draft.put("placement.engine_max_running_requests", max(1, whole(flag.text, 64)), flag)
    else:
        why = "its share of a step, up to 256; slime sends an engine up to 512 at a time"
        draft.default("placement.engine_max_running_requests", None, why)
    if running and sent:
        draft.skip(sent, "an engine is sent what it can run at a time")
    if not flags.look("sglang_mem_fraction_static"):
        draft.default("placement.engine_memory_fraction", 0.5, "slime leaves it to SGLang")
