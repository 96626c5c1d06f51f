"""Phase x owner x bytes: against what was measured, against the residency table, and against laws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import modelcfg
from core.planner import Device, engine, plan_memory, takes_turns, trainer
from core.planner.drafting import drafting_shape
from core.planner.memory import OTHERS, TIGHT
from core.residency.table import ENGINE, TABLE, TRAINER, TRAINER_PARTS
from tests.support.good_run import SHAPE, write_model
from tests.support.plans import CPU, GIB, H100, plan, run

RESULTS = Path(__file__).parents[3] / "bench" / "results"
BEYOND_THE_TABLE = {"process", "buckets", "activations", "logits", "forward pass"}


ALL_LEAVE = {"offload": "on"}


def measured(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def test_the_trainers_parts_are_those_that_were_measured() -> None:
    parts = plan(run()).phases["update"][TRAINER]
    for name, gib in measured("park")["parts_gib"].items():
        assert parts.get(name, 0) / GIB == pytest.approx(gib, abs=1e-9), name


def test_a_4b_model_parks_45_gib_per_gpu() -> None:
    found = plan(run(placement=ALL_LEAVE))
    assert found.host_bytes / GIB == pytest.approx(measured("park")["moved_gib"], abs=1e-9)
    assert found.host_bytes == pytest.approx(12 * modelcfg.num_parameters(modelcfg.load("qwen3-4b")), rel=1e-4)
    assert plan(run(placement={**ALL_LEAVE, "trainers_per_node": 8})).host_bytes == 8 * found.host_bytes


def test_what_a_parked_trainer_and_a_released_engine_leave_is_as_measured() -> None:
    """Both together: after the run whose figures these are nobody told them apart."""
    used = measured("orchestration")["used_gib"]["score"]
    found = plan(run())
    assert sorted(found.staying) == measured("orchestration")["staying"]
    assert used <= found.phase_bytes("score") / GIB < used + 0.6


def test_the_trainers_process_is_as_measured() -> None:
    alone = plan(run()).phases["score"][TRAINER]["process"] / GIB
    assert alone == pytest.approx(measured("park")["residual_gib"], abs=0.15)
    shared_out = plan(run(train={"use_distributed_optimizer": True})).phases["score"][TRAINER]["process"] / GIB
    assert shared_out == pytest.approx(alone + 0.4)


def test_the_measured_run_is_foreseen_within_one_and_a_half_gib() -> None:
    """16 groups of 8 samples of 128 + 1536 tokens; in the update a row holds five of one group."""
    used = measured("orchestration")["used_gib"]
    data, train = {"max_prompt_tokens": 128}, {"max_tokens_per_micro_batch": 128 + 5 * 1535}
    found = plan(run(data=data, train=train))
    for phase, gib in used.items():
        assert found.phase_bytes(phase) / GIB == pytest.approx(gib, abs=1.5), phase


PPO = {"advantage_estimator": "gae"}


def test_a_critic_is_planned_beside_the_policy() -> None:
    """Of bfloat16: 14 bytes per parameter of its own, and 4 in the gradients; its state does not stream."""
    alone, both = plan(run("qwen3-0.6b")), plan(run("qwen3-0.6b", algorithm=PPO))
    policy, pair = alone.phases["update"][TRAINER], both.phases["update"][TRAINER]
    critic = policy["masters"] + policy["moments"] + policy["parameters"]  # tied: the head is all that is added
    assert pair["critic"] == pytest.approx(critic, rel=1e-4)
    assert pair["gradients"] == pytest.approx(2 * policy["gradients"], rel=1e-4)
    assert {name: size for name, size in pair.items() if name not in ("critic", "gradients")} == {
        name: size for name, size in policy.items() if name != "gradients"
    }
    large = plan(run("qwen3-8b", algorithm=PPO, train={"optimizer_state": "auto"}))
    assert not large.streamed
    assert not large.fits()
    parked = plan(run("qwen3-0.6b", algorithm=PPO, placement=ALL_LEAVE))
    assert parked.in_turns
    assert parked.host_bytes == sum(parked.phases["update"][TRAINER][part] for part in ("masters", "moments", "critic"))


@pytest.mark.parametrize("phase", TABLE)
def test_a_phase_holds_what_the_table_grants_and_what_it_takes_itself(phase: str) -> None:
    for owner, parts in plan(run(algorithm={**PPO, "kl_loss_coef": 0.1}, placement=ALL_LEAVE)).phases[phase].items():
        granted = TABLE[phase].of(owner) - {"cuda_graph", "base"}  # counted with the engine's process; of adapters
        assert set(parts) - BEYOND_THE_TABLE == granted


def test_without_offload_everything_is_there_in_every_phase() -> None:
    found, in_turns = (plan(run("qwen3-0.6b", placement={"offload": choice})) for choice in ("off", "on"))
    assert found.host_bytes == 0
    for phase in TABLE:
        assert set(TRAINER_PARTS) - {"reference", "base", "critic"} <= set(found.phases[phase][TRAINER])
        assert {"weights", "kv_cache"} <= set(found.phases[phase][ENGINE])
        assert found.phase_bytes(phase) > in_turns.phase_bytes(phase)


@pytest.mark.parametrize(
    ("shape", "offload", "device", "wanted"),
    [
        ("qwen3-0.6b", "auto", H100, False),
        ("qwen3-0.6b", "on", H100, True),
        ("qwen3-0.6b", "auto", Device("cuda", 24 * GIB), True),
        ("qwen3-0.6b", "auto", Device("cuda", None), True),
        ("qwen3-0.6b", "auto", CPU, False),
        ("qwen3-4b", "auto", H100, True),
        ("qwen3-4b", "off", H100, False),
    ],
)
def test_memory_is_given_back_where_a_gpu_does_not_hold_everything_at_once(
    shape: str, offload: str, device: Device, wanted: bool
) -> None:
    config = run(shape, placement={"offload": offload})
    assert takes_turns(config, modelcfg.load(shape), device) is wanted
    if device.total_bytes is not None:
        assert plan(config, device).in_turns is wanted


def test_what_stays_on_the_gpu_unasked_leaves_room_for_fragments() -> None:
    config = run("qwen3-0.6b")
    sizes = [size for size in range(24, 81) if not plan(config, Device("cuda", size * GIB)).in_turns]
    assert sizes == list(range(sizes[0], 81)), "once there is room, more of it is no less"
    assert plan(config, Device("cuda", sizes[0] * GIB)).fits(share=TIGHT)
    assert not plan(run("qwen3-0.6b", placement={"offload": "off"}), Device("cuda", (sizes[0] - 1) * GIB)).fits(
        share=TIGHT
    )


@pytest.mark.parametrize(
    ("changes", "staying"),
    [
        ({}, {"masters"}),
        ({"placement": {"engine_memory_fraction": 0.3}}, {"masters"}),  # or a restarted engine would have no cache
        ({"placement": {"engine_memory_fraction": 0.3, "engine_max_total_tokens": 20000}}, {"masters", "moments"}),
        ({"placement": {"engine_memory_fraction": 0.8}}, set()),
        ({"placement": ALL_LEAVE}, set()),
        ({"algorithm": {"kl_loss_coef": 0.1}}, {"masters", "reference"}),
        ({"algorithm": {"advantage_estimator": "reinforce_plus_plus", "kl_coef": 0.1}}, {"masters", "reference"}),
        (
            {"train": {"use_distributed_optimizer": True}, "placement": {"trainers_per_node": 8}},
            {"masters", "parameters", "moments"},
        ),
    ],
)
def test_what_has_room_beside_the_engine_stays(changes: dict[str, Any], staying: set[str]) -> None:
    """Of 4B on an H100: masters before moments, which come back while the trainer computes."""
    found = plan(run(**changes))
    assert found.in_turns
    assert found.staying == staying
    parts = found.phases["update"][TRAINER]
    leaving = {"masters", "moments", "parameters", "reference"} - staying
    if "train" not in changes:
        leaving -= {"parameters"}  # rounded from the masters
    ranks = changes.get("placement", {}).get("trainers_per_node", 1)
    assert found.host_bytes == ranks * sum(parts.get(part, 0) for part in leaving)
    for phase in TABLE:
        assert staying <= set(found.phases[phase][TRAINER])


def test_what_stays_leaves_room_for_fragments_in_the_phases_of_others() -> None:
    config = run()
    for size in range(76, 200, 4):
        found = plan(config, Device("cuda", size * GIB))
        assert found.fits(OTHERS, TIGHT) or not found.staying, size


def test_engines_with_gpus_of_their_own_do_not_add_up() -> None:
    found = plan(run("qwen3-0.6b", placement={"engines": "own_gpus"}))
    assert found.host_bytes == 0
    for phase, owners in found.phases.items():
        assert found.phase_bytes(phase) == max(sum(parts.values()) for parts in owners.values())
        assert found.trainers_bytes(phase)[1] == sum(owners[TRAINER].values())
    assert plan(run("qwen3-0.6b", placement={"offload": "off"})).needed_bytes() > found.needed_bytes()


def test_a_phase_begins_without_what_it_takes_itself() -> None:
    found = plan(run())
    taken = {phase: fullest - begun for phase in TABLE for begun, fullest in [found.trainers_bytes(phase)]}
    work = found.phases["update"][TRAINER]
    assert taken["update"] == work["activations"] + work["logits"]
    assert taken["score"] == taken["save"] == 0


def test_a_reference_is_one_more_copy_of_the_parameters() -> None:
    parts = plan(run(algorithm={"kl_loss_coef": 0.1})).phases["update"][TRAINER]
    assert parts["reference"] == parts["parameters"]


def trainer_bytes(**changes: Any) -> int:
    placement = {"trainers_per_node": 8, **changes.pop("placement", {})}
    return sum(plan(run("qwen3-8b", placement=placement, **changes)).phases["update"][TRAINER].values())


def test_sums_fall_with_every_kind_of_sharing() -> None:
    shared = {"use_distributed_optimizer": True}
    layouts: dict[str, list[dict[str, Any]]] = {
        "tensor parallel": [{"placement": {"tensor_parallel": size}} for size in (1, 2, 4, 8)],
        "pipeline parallel": [{"placement": {"pipeline_parallel": size}} for size in (1, 2, 4)],
        "data parallel": [{"train": shared, "placement": {"num_nodes": nodes}} for nodes in (1, 2, 4, 8)],
    }
    for name, steps in layouts.items():
        sums = [trainer_bytes(**step) for step in steps]
        assert sums == sorted(set(sums), reverse=True), name
    assert trainer_bytes(train=shared) < trainer_bytes()
    assert trainer_bytes(placement={"num_nodes": 4}) == trainer_bytes(), "whole copies are not shared out"


def test_sums_rise_with_tokens_up_to_all_of_a_step() -> None:
    sums = [trainer_bytes(train={"max_tokens_per_micro_batch": size}) for size in (2048, 4096, 16384, 65536)]
    assert sums == sorted(set(sums))
    everything = 16 * 512 + 128 * 1536
    assert trainer_bytes(train={"max_tokens_per_micro_batch": everything}) == trainer_bytes(
        train={"max_tokens_per_micro_batch": 2 * everything}
    )


def test_engines_share_their_weights_and_have_more_room_for_tokens() -> None:
    one, two = (
        plan(run("qwen3-8b", placement={"trainers_per_node": 2, "engine_tensor_parallel": size})) for size in (1, 2)
    )
    assert two.phases["rollout"][ENGINE]["weights"] < 0.51 * one.phases["rollout"][ENGINE]["weights"]
    assert two.cache.tokens > 2 * one.cache.tokens


def test_groups_of_an_engines_ranks_have_the_whole_attention_and_a_cache_each() -> None:
    two_ranks = {"trainers_per_node": 2, "engine_tensor_parallel": 2, "engine_max_total_tokens": 9000}
    in_groups = {"enable_dp_attention": True, "dp_size": 2}
    cut, grouped, with_output = (
        plan(run("qwen3-8b", placement={**two_ranks, "engine_options": options}))
        for options in ({}, in_groups, in_groups | {"enable_dp_lm_head": True})
    )
    assert (cut.cache.tokens, grouped.cache.tokens) == (9000, 18000), "engine_max_total_tokens is of a group"
    of_cut, of_grouped = (one.phases["rollout"][ENGINE] for one in (cut, grouped))
    assert of_grouped["kv_cache"] == 2 * of_cut["kv_cache"], "all heads of half of the samples"
    parts = modelcfg.parameter_parts(modelcfg.load("qwen3-8b"))
    assert of_grouped["weights"] - of_cut["weights"] == parts["attention"] + parts["embedding"]
    assert with_output.phases["rollout"][ENGINE]["weights"] - of_grouped["weights"] == parts["output"]


def test_the_fullest_stage_stands_for_all() -> None:
    config = run("qwen3-8b", placement={"trainers_per_node": 4, "pipeline_parallel": 4, "engine_memory_fraction": 0.3})
    stages = [plan_memory(config, modelcfg.load("qwen3-8b"), H100, stage=stage).needed_bytes() for stage in range(4)]
    assert plan(config).needed_bytes() == max(stages)
    embedding = 151_936 * 4096  # on the first stage, and its twin on the last: weight, gradient, master and moments
    assert min(stages[0], stages[3]) - max(stages[1], stages[2]) > (2 + 2 + 4 + 8) * embedding


def test_on_a_cpu_the_processes_of_a_node_add_up() -> None:
    fp32 = {"dtype": "float32"}
    one = plan(run("smollm2-135m", model=fp32), CPU)
    two = plan(run("smollm2-135m", model=fp32, placement={"trainers_per_node": 2, "engines_per_node": 2}), CPU)
    assert two.needed_bytes() == 2 * one.needed_bytes()
    parameters = modelcfg.num_parameters(modelcfg.load("smollm2-135m"))
    assert one.phases["update"][TRAINER]["moments"] == pytest.approx(8 * parameters, rel=1e-3)
    assert "masters" not in one.phases["update"][TRAINER]


GRAPHED: dict[str, Any] = {"recompute": "none", "max_tokens_per_micro_batch": 4096}


def test_graphs_are_there_in_every_phase() -> None:
    found, without = (plan(run("qwen3-0.6b", train={**GRAPHED, "cuda_graphs": wanted})) for wanted in (True, False))
    assert found.graphs == (2048, False), "beside this engine there is no room for 4096"
    assert without.graphs is None
    more = {found.phase_bytes(phase) - without.phase_bytes(phase) for phase in TABLE}
    assert len(more) == 1
    assert more.pop() == found.phases["sync"][TRAINER]["row graphs"] > 0
    assert found.trainers_bytes("score") == (found.phase_bytes("score"),) * 2, "no phase takes them"


@pytest.mark.parametrize(
    ("changes", "device"),
    [
        ({"train": {**GRAPHED, "recompute": "full"}}, H100),
        ({"train": GRAPHED, "placement": {"trainers_per_node": 2, "tensor_parallel": 2}}, H100),
        ({"train": GRAPHED, "placement": {"trainers_per_node": 2, "pipeline_parallel": 2}}, H100),
        ({"train": GRAPHED, "placement": {"offload": "on"}}, H100),
        ({"train": GRAPHED, "model": {"dtype": "float32"}}, H100),
        ({"train": GRAPHED}, CPU),
        ({"train": GRAPHED}, Device("cuda", None)),
    ],
)
def test_some_runs_have_no_graphs(changes: dict[str, Any], device: Device) -> None:
    config = run("smollm2-135m", **changes)
    assert plan(config, device).graphs is None


def test_rows_with_experts_are_no_graphs() -> None:
    config, shape = run("smollm2-135m", train=GRAPHED), modelcfg.load("smollm2-135m")
    assert trainer.possible_graphs(config, shape, "cuda")
    with_experts = shape.model_copy(update={"num_experts": 8, "experts_per_token": 2})
    assert trainer.possible_graphs(config, with_experts, "cuda") == []


CUT_EXPERTS = {"tensor_parallel": 2, "expert_tensor_parallel": 2}


# the groups of more than one rank, or of the distributed optimiser, in which tiny models were seen to talk on gloo
@pytest.mark.parametrize(
    ("ranks", "placement", "shared_out", "communicators"),
    [
        pytest.param(2, {}, False, 1, id="dp2"),
        pytest.param(2, {"expert_parallel": 2}, False, 4, id="ep2"),
        pytest.param(2, {"expert_parallel": 2}, True, 5, id="ep2, shared out"),
        pytest.param(4, {"expert_parallel": 2}, False, 5, id="ep2 dp2"),
        pytest.param(4, {"expert_parallel": 2, "pipeline_parallel": 2}, False, 6, id="pp2 ep2"),
        pytest.param(2, {"expert_parallel": 2, "tensor_parallel": 2}, False, 5, id="tp2 ep2"),
        pytest.param(4, {"expert_parallel": 2, "tensor_parallel": 2}, False, 7, id="tp2 ep2 dp2"),
        pytest.param(2, CUT_EXPERTS, False, 4, id="tp2 etp2"),
        pytest.param(2, CUT_EXPERTS, True, 6, id="tp2 etp2, shared out"),
        pytest.param(4, {"expert_parallel": 2, **CUT_EXPERTS}, False, 7, id="tp2 ep2 etp2"),
        pytest.param(8, {"expert_parallel": 2, **CUT_EXPERTS}, False, 8, id="tp2 ep2 etp2 dp4"),
    ],
)
def test_communicators(ranks: int, placement: dict[str, int], shared_out: bool, communicators: int) -> None:
    placement = {"trainers_per_node": ranks, **placement}
    config = run("qwen3-30b-a3b", placement=placement, train={"use_distributed_optimizer": shared_out})
    assert trainer.num_communicators(config) == communicators


def test_engines_have_all_experts_and_compute_the_chosen_ones() -> None:
    shape, config = modelcfg.load("qwen3-30b-a3b"), run("qwen3-30b-a3b")
    tokens = 8192
    assert engine.forward_bytes(config, shape, "cuda") == tokens * (8 * (3 * 768 + 2048) + 2048) * 2
    cache = engine.cache(config, shape, "cuda", 80 * GIB)
    assert engine.part_bytes(config, shape, "cuda", cache)["weights"] == 2 * modelcfg.num_parameters(shape)
    split = run("qwen3-30b-a3b", placement={"engine_tensor_parallel": 2})
    parts = modelcfg.parameter_parts(shape)
    whole = parts["norms"] + parts["router"]
    assert engine.part_bytes(split, shape, "cuda", cache)["weights"] == modelcfg.num_parameters(shape) + whole


@pytest.mark.parametrize(("said", "drafted"), [({}, 12), ({"speculative_num_draft_tokens": 32}, 32)])
def test_drafts_are_planned(said: dict[str, int], drafted: int) -> None:
    shape, samples = modelcfg.load("qwen3-4b"), {"engine_max_running_requests": 64}
    options = {"speculative_algorithm": "NGRAM", **said}
    found = plan(run("qwen3-4b", placement={**samples, "engine_options": options}), Device("cuda", 141 * GIB))
    # logits, the same by temperature, log-probs, the rows taken; of each token it may look at an index and a mask
    assert found.phases["rollout"][ENGINE]["forward pass"] == 4 * 4 * 64 * drafted * shape.vocab_size
    kept = 9 * 64 * drafted * shape.max_position_embeddings
    assert {phase[ENGINE]["drafts"] for phase in found.phases.values()} == {kept}
    assert "drafts" not in plan(run("qwen3-4b", placement=samples)).phases["rollout"][ENGINE]


def drafting(folder: Path, name: str, **options: Any) -> dict[str, Any]:
    """Options of an engine for which a known model drafts."""
    shape = modelcfg.load(name)
    write_model(folder, shape, architectures=["Qwen3ForCausalLM"])
    return {"speculative_algorithm": "STANDALONE", "speculative_draft_model_path": str(folder), **options}


def test_a_model_that_drafts_is_planned(tmp_path: Path) -> None:
    """Weights, places in the cache, graphs, and the host's memory that the weights wait in."""
    shape, small = modelcfg.load("qwen3-4b"), modelcfg.load("qwen3-0.6b")
    placement = {"engine_max_running_requests": 64}
    alone = plan(run("qwen3-4b", placement=placement))
    options = drafting(tmp_path / "draft", "qwen3-0.6b")
    found = plan(run("qwen3-4b", placement={**placement, "engine_options": options}))
    weights, of_engine = 2 * modelcfg.num_parameters(small), [one.phases["rollout"][ENGINE] for one in (found, alone)]
    assert of_engine[0]["weights"] - of_engine[1]["weights"] == weights
    assert found.cache is not None
    assert alone.cache is not None
    more = 2 * small.num_layers * small.num_query_groups * small.head_dim * 2
    assert found.cache.token_bytes - alone.cache.token_bytes == more
    static = 0.6 * (H100.total_bytes or 0)
    assert 0 <= static - of_engine[0]["weights"] - found.cache.num_bytes < 2 * found.cache.token_bytes
    assert found.host_bytes - alone.host_bytes == weights
    context, bs = shape.max_position_embeddings, 64
    kept = 9 * bs * 4 * context + 8 * (3 + 4) * bs * context + 4 * bs * 4 * shape.vocab_size
    assert of_engine[0]["drafts"] == kept
    assert found.phases["update"][ENGINE]["drafts"] == kept
    assert "weights" not in found.phases["update"][ENGINE]


def test_a_model_that_drafts_may_have_more_of_the_cache_than_sglang_counts(tmp_path: Path) -> None:
    """SGLang takes its layers for some of the model's own."""
    write_model(tmp_path, SHAPE.model_copy(update={"num_query_groups": 6, "num_layers": 2}))
    options = {"speculative_algorithm": "STANDALONE", "speculative_draft_model_path": str(tmp_path)}
    config = run("qwen3-0.6b", placement={"engine_options": options})
    drafts, own = drafting_shape(config), modelcfg.load("qwen3-0.6b")
    assert drafts is not None
    assert drafts.num_query_groups == 6
    cache = engine.cache(config, own, "cuda", 80 * GIB)
    one, other = (4 * one.num_layers * one.num_query_groups * one.head_dim for one in (own, drafts))
    static = 0.6 * 80 * GIB - 2 * (modelcfg.num_parameters(own) + modelcfg.num_parameters(drafts))
    assert cache.token_bytes == one + other
    assert cache.tokens == int(static) // int(one * (1 + 2 / own.num_layers))


def test_nothing_is_given_back_for_the_sake_of_graphs() -> None:
    for size in range(16, 81, 4):
        device = Device("cuda", size * GIB)
        found, without = (
            plan(run("qwen3-0.6b", train={**GRAPHED, "cuda_graphs": wanted}), device) for wanted in (True, False)
        )
        assert found.in_turns == without.in_turns
        assert found.fits() == without.fits()
        assert found.graphs is None or found.fits(share=TIGHT)
