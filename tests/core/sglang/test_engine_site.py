"""What our sitecustomize does to a Python process, seen from outside."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, Mock

import httpx
import psutil
import pytest
import torch
from torch import nn

import core
from core.sglang.launch import CPU_SHIM, ENGINE_SITE, EngineSpec, environment
from launchers.node.ports import ReservedPort
from tests.support.engine_servers import has_ended, wait_ended
from tests.support.tiny_models import SINKS, tiny_model
from tests.support.waiting import COMMAND_S

PARENT = """
import os, subprocess, sys
code = "import time; print('up', flush=True); time.sleep(600)"
spawned = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
spawned.stdout.readline()
forked = os.fork()
if forked == 0:
    import time
    time.sleep(600)
print(spawned.pid, forked, flush=True)
spawned.wait()
"""

UPDATE_BOTH = """
from unittest.mock import MagicMock as M
from sglang.srt.plugins import load_plugins
load_plugins()
from sglang.srt.managers import scheduler  # its own hook needs it whole
from sglang.srt.managers.scheduler_components.weight_updater import SchedulerWeightUpdaterManager
found = []
def worker(role):
    def update(*_, **__):
        found.append(role)
        return True, ""
    runner = M(weight_updater=M(update_weights_from_disk=update))
    return M(weight_update_runners=lambda: [(role, runner)], update_weights_from_disk=update)
manager = SchedulerWeightUpdaterManager(
    tp_worker=worker("target"), draft_worker=worker("draft"), tp_cpu_group=None, memory_saver_adapter=None,
    flush_cache=lambda **_: True, is_fully_idle=lambda: True, scheduler=M())
manager.update_weights_from_disk(M(model_path="p", load_format="auto", flush_cache=True))
print()
print(*found)
"""


def run(code: str, path: list[Path], **variables: str) -> str:
    env = os.environ | {"PYTHONPATH": ":".join(map(str, path))} | variables
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=COMMAND_S)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_children_die_with_their_parent() -> None:
    env = os.environ | {"PYTHONPATH": str(ENGINE_SITE), "EBBTIDE_DIE_WITH_PARENT": "1"}
    parent = subprocess.Popen([sys.executable, "-c", PARENT], env=env, stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    assert len(children) == 2
    assert not any(map(has_ended, children))
    parent.kill()
    parent.wait(30)
    wait_ended(children)


def test_next_sitecustomize_runs_too(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os; os.environ['ANOTHER'] = 'ran'\n")
    assert run("import os; print(os.environ['ANOTHER'])", [ENGINE_SITE, tmp_path]) == "ran"


def hooked_by_plugins(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Functions of SGLang that plugins hook into from now on."""
    hooked: list[str] = []
    registry = SimpleNamespace(register=lambda *one: hooked.append(one[0]))
    hooks = SimpleNamespace(HookRegistry=registry, HookType=Mock())
    monkeypatch.setitem(sys.modules, "sglang.srt.plugins.hook_registry", hooks)
    return hooked


def test_an_engine_in_fp8_begins_with_factors_of_one_for_its_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """What SGLang fills by chance, until weights come, are no factors. Other engines are left alone."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ENGINE_SITE)])
    import ebbtide_fp8_engine as plugin

    layer = nn.Module()
    layer.k_scale, layer.v_scale = nn.Parameter(torch.tensor(3e-4)), nn.Parameter(torch.tensor(3e-4))
    layer.weight = nn.Parameter(torch.ones(2))
    model = nn.ModuleDict({"attn": layer})
    assert plugin.keep_cache_factors("given", model) == "given"
    assert [layer.k_scale.item(), layer.v_scale.item()] == [-1.0, -1.0]
    assert layer.weight.tolist() == [1.0, 1.0]
    hooked = hooked_by_plugins(monkeypatch)
    plugin.register()
    assert hooked == []
    monkeypatch.setenv("EBBTIDE_ENGINE_WEIGHTS", "int8")
    plugin.register()
    assert hooked == []
    monkeypatch.setenv("EBBTIDE_ENGINE_WEIGHTS", "fp8")
    plugin.register()
    assert hooked == [plugin.FILL, plugin.QUANTISE, plugin.LOAD_LLAMA]


def test_an_engine_in_int8_keeps_its_weights_and_multiplies_by_their_transpose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other engines are left alone."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ENGINE_SITE)])
    import ebbtide_int8_engine as plugin

    layer = SimpleNamespace(weight=torch.arange(6).to(torch.int8).view(2, 3), weight_scale=torch.ones(2, 1))
    seen = Mock(return_value="product")
    assert plugin.multiply(seen, "method", layer, "activations", "bias") == "product"
    method, turned, *rest = seen.call_args.args
    assert (method, rest) == ("method", ["activations", "bias"])
    assert (turned.weight.shape, turned.weight.stride()) == ((3, 2), (1, 3)), "as the kernel wants it: no copy"
    assert turned.weight.data_ptr() == layer.weight.data_ptr()
    assert turned.weight_scale is layer.weight_scale
    hooked = hooked_by_plugins(monkeypatch)
    for weights, wanted in (("", []), ("fp8", []), ("int8", [*plugin.LOADED, plugin.APPLY])):
        monkeypatch.setenv("EBBTIDE_ENGINE_WEIGHTS", weights)
        plugin.register()
        assert hooked == wanted


def test_a_sync_leaves_what_drafts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """SGLang's own updates, by whichever way, reach the model; what drafts is there again afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ENGINE_SITE)])
    import ebbtide_drafts as plugin

    updated: list[str] = []
    manager = SimpleNamespace(draft_worker="drafts")

    def usual(manager: Any, request: str, *, fails: bool = False) -> str:
        updated.append(f"{manager.draft_worker or 'the model'} by {request}")
        if fails:
            raise RuntimeError("no such file")
        return "updated"

    assert plugin.without_drafts(usual, manager, "a bucket") == "updated"
    with pytest.raises(RuntimeError):
        plugin.without_drafts(usual, manager, "files", fails=True)
    assert updated == ["the model by a bucket", "the model by files"]
    assert manager.draft_worker == "drafts"
    hooked = hooked_by_plugins(monkeypatch)
    plugin.register()
    assert hooked == []
    monkeypatch.setenv("EBBTIDE_DRAFTS", "1")
    plugin.register()
    names = [target.rpartition(".")[2] for target in hooked]
    assert names == [*(f"update_weights_from_{way}" for way in plugin.WAYS), "init_all_cuda_graphs"]


@pytest.mark.engine
def test_sglangs_own_updates_reach_the_model_alone() -> None:
    """The hooks hold on SGLang's class, which has slots; a hook that does not is but a line in a log."""
    path, variables = [ENGINE_SITE, CPU_SHIM], {"EBBTIDE_CPU_ENGINE": "1", "SGLANG_USE_CPU_ENGINE": "1"}
    assert run(UPDATE_BOTH, path, **variables).splitlines()[-1] == "target draft"
    assert run(UPDATE_BOTH, path, EBBTIDE_DRAFTS="1", **variables).splitlines()[-1] == "target"


def test_back_ends_that_are_not_used_need_no_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where a module cannot be imported, nothing is of its class; afterwards it cannot be imported again."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path, str(ENGINE_SITE)])
    import ebbtide_drafts as plugin

    (tmp_path / "back_end_with_kernels.py").write_text("class Kernels: pass\n")
    (tmp_path / "back_end_without.py").write_text("import package_that_is_not_there\n")
    monkeypatch.setattr(plugin, "BACK_ENDS", {"back_end_with_kernels": "Kernels", "back_end_without": "Others"})

    def captured() -> tuple[str, bool]:
        from back_end_with_kernels import Kernels  # type: ignore[import-not-found]
        from back_end_without import Others  # type: ignore[import-not-found]

        return Kernels.__module__, isinstance(plugin, Others)

    assert plugin.without_other_back_ends(captured) == ("back_end_with_kernels", False)
    with pytest.raises(ModuleNotFoundError):
        captured()
    monkeypatch.delitem(sys.modules, "back_end_with_kernels")


def test_sglang_has_what_the_plugin_hooks_into(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its functions are there under these names; nothing of it is imported."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ENGINE_SITE)])
    import ebbtide_attention_groups as groups
    import ebbtide_drafts as drafts
    import ebbtide_fp8_engine as plugin
    import ebbtide_group_processes as processes
    import ebbtide_int8_engine as int8
    import ebbtide_triton_blocks as blocks
    import ebbtide_triton_windows as windows

    (package,) = (Path(folder) for folder in importlib.util.find_spec("sglang").submodule_search_locations)
    for target in (plugin.FILL, plugin.QUANTISE, blocks.ATTEND):
        module, _, name = target.removeprefix("sglang.").rpartition(".")
        text = (package / f"{module.replace('.', '/')}.py").read_text()
        assert re.search(rf"^(def {name}\(|    {name},$)", text, re.MULTILINE), target
    used = f'wait_port_available({processes.USED}, "{processes.USED}")'
    of_settings = [(processes.SETTINGS, text) for text in ("    def init_new(", used)]
    for module, text in (*of_settings, (processes.CONTROLLER, "self.soft_watchdog.feed()")):
        assert text in (package / f"{module.removeprefix('sglang.').replace('.', '/')}.py").read_text()
    updates = [drafts.UPDATES + way for way in drafts.WAYS]
    of_int8 = (*int8.LOADED, int8.APPLY)
    for target in (groups.SLEEP, groups.FLUSH, blocks.COUNT, drafts.CAPTURE, *updates, *of_int8):
        module, owner, name = target.removeprefix("sglang.").rsplit(".", 2)
        text = (package / f"{module.replace('.', '/')}.py").read_text()
        assert f"    def {name}(" in text.partition(f"class {owner}")[2].replace("async def", "def"), target
    capture = (package / "srt/speculative/eagle_worker_v2.py").read_text()
    assert all(f"from {module} import" in capture and name in capture for module, name in drafts.BACK_ENDS.items())
    loading = (package / "srt/model_executor/model_runner_components/load_model_utils.py").read_text()
    assert "enable_draft_weights_cpu_backup" in loading
    text = (package / "srt/models/llama.py").read_text().partition("class LlamaForCausalLM(")[2]
    assert "    def load_weights(self, weights: Iterable[Tuple[str, torch.Tensor]]):" in text
    assert 'name.replace(".weight_scale_inv", ".weight_scale")' in text  # else it is not needed any more
    text = (package / f"{windows.MODULE.removeprefix('sglang.').replace('.', '/')}.py").read_text()
    gathers = text.partition("def update_sliding_window_buffer(")[2].partition("\ndef ")[0]
    assert "class TritonAttnBackend(" in text
    assert "torch.tensor(sliding_window_size)" in gathers
    assert windows.MENDED not in gathers  # else it is not needed any more


def test_a_flush_of_all_groups_answers_with_the_one_that_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """SGLang gives the first answer. Its scheduler's sleep ends after a few milliseconds, for others wait for it."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ENGINE_SITE)])
    import ebbtide_attention_groups as plugin

    request = SimpleNamespace(FlushCacheReqInput=lambda timeout_s: timeout_s)
    monkeypatch.setitem(sys.modules, "sglang.srt.managers.io_struct", request)
    good, bad = SimpleNamespace(success=True), SimpleNamespace(success=False)
    for answers, wanted in (([good, bad], bad), ([good, good], good)):
        manager = Mock(flush_cache_communicator=AsyncMock(return_value=answers))
        assert asyncio.run(plugin.flush_all(manager, 2.0)) is wanted
        manager.flush_cache_communicator.assert_awaited_once_with(2.0)
    sleeper = Mock()
    plugin.sleep_shortly(sleeper)
    sleeper.poller.poll.assert_called_once_with(plugin.SLEEP_MS)
    hooked = hooked_by_plugins(monkeypatch)
    plugin.register()
    assert hooked == []
    monkeypatch.setenv("EBBTIDE_ATTENTION_GROUPS", "1")
    plugin.register()
    assert hooked == [plugin.SLEEP, plugin.FLUSH]


SETTINGS = """
from types import SimpleNamespace
from typing import Any
def wait_port_available(port, name, timeout_s=30):
    if name != "nccl_port":
        raise ValueError(f"{name} {port} is in use")
class PortArgs:
    @staticmethod
    def init_new(server_args, dp_rank=None, worker_ports=None):
        for name in ("port_base", "nccl_port"):
            wait_port_available(4000, name)
        names = ("tokenizer", "detokenizer", "rpc", "metrics", "scheduler_input")
        return SimpleNamespace(**{f"{name}_ipc_name": f"tcp://127.0.0.1:{4000 + i}" for i, name in enumerate(names)})
"""
CONTROLLER = """
class DataParallelController:
    def event_loop(self):
        self.soft_watchdog.feed()
"""
OF_GROUPS = """
import sglang.srt.server_args as settings
from sglang.srt.managers.data_parallel_controller import DataParallelController
from unittest.mock import Mock
print(vars(settings.PortArgs.init_new("args")), vars(settings.PortArgs.init_new("args", 1, [5])), sep="|")
controller = Mock(soft_watchdog=Mock(spec=["feed"]))
fed = controller.soft_watchdog.feed
DataParallelController.event_loop(controller)
print(fed.call_count, controller.recv_from_tokenizer.poll.call_args_list)
"""


def test_processes_of_groups_talk_in_the_engines_folder_and_wait_for_requests(tmp_path: Path) -> None:
    """In every process, however it was started: over no port that others may write to, and not asking all the time."""
    folder = tmp_path / "sglang" / "srt"
    (folder / "managers").mkdir(parents=True)
    for package in (folder.parent, folder, folder / "managers"):
        (package / "__init__.py").touch()
    (folder / "server_args.py").write_text(SETTINGS)
    (folder / "managers" / "data_parallel_controller.py").write_text(CONTROLLER)
    text = run(OF_GROUPS, [ENGINE_SITE, tmp_path], EBBTIDE_ATTENTION_GROUPS="1", TMPDIR=str(tmp_path))
    ports, waits = text.splitlines()
    of_server, of_group = map(ast.literal_eval, ports.split("|"))
    assert set(of_server.values()) == {f"ipc://{tmp_path}/group-port-{4000 + i}" for i in range(5)}
    assert of_group == of_server | {"scheduler_input_ipc_name": "tcp://127.0.0.1:4004"}, (
        "which a group's requests come by"
    )
    assert waits == "1 [call(1000)]"
    with pytest.raises(AssertionError, match="port_base 4000 is in use"):
        run(OF_GROUPS, [ENGINE_SITE, tmp_path])


def test_llamas_factors_arrive_in_sglangs_own_layers() -> None:
    """Under the names of what is fused; the second of two ranks has its part, by rows, and of an output by columns."""
    code = """
from types import SimpleNamespace
from typing import Any
from sglang.srt.plugins import load_plugins
load_plugins()
import torch
from torch import nn
from sglang.srt.layers.linear import MergedColumnParallelLinear, QKVParallelLinear, RowParallelLinear
from sglang.srt.layers.quantization.fp8 import Fp8Config
from sglang.srt.models.mistral import MistralForCausalLM
from sglang.srt.runtime_context import get_parallel

fp8 = Fp8Config(is_checkpoint_fp8_serialized=True, activation_scheme="dynamic", weight_block_size=[128, 128])
rank = {"tp_rank": 1, "tp_size": 2}
rest = {"bias": False, "quant_config": fp8, **rank}
model = MistralForCausalLM.__new__(MistralForCausalLM)
nn.Module.__init__(model)
model.config = SimpleNamespace(tie_word_embeddings=False)
model.stacked_params_mapping = [(".qkv_proj", f".{x}_proj", x) for x in "qkv"]
model.stacked_params_mapping += [(".gate_up_proj", ".gate_proj", 0), (".gate_up_proj", ".up_proj", 1)]
with get_parallel().override(**rank):
    layer = nn.Module()
    layer.qkv_proj = QKVParallelLinear(256, 128, 4, 2, prefix="qkv_proj", **rest)
    layer.o_proj = RowParallelLinear(512, 256, prefix="o_proj", **rest)
    layer.gate_up_proj = MergedColumnParallelLinear(256, [512, 512], prefix="gate_up_proj", **rest)
    model.model = nn.ModuleDict({"mlp": layer})
    def factors(name, rows, columns, first):
        return f"model.mlp.{name}.weight_scale_inv", (torch.arange(rows * columns).float() + first).view(rows, columns)
    sent = [factors("q_proj", 4, 2, 100), factors("k_proj", 2, 2, 200), factors("v_proj", 2, 2, 300)]
    sent += [factors("o_proj", 2, 4, 400), factors("gate_proj", 4, 2, 500), factors("up_proj", 4, 2, 600)]
    norm = nn.Parameter(torch.zeros(2))
    layer.register_parameter("norm", norm)
    model.load_weights(iter([*sent, ("model.mlp.norm", torch.tensor([7.0, 8.0]))]))
    for part in (layer.qkv_proj, layer.o_proj, layer.gate_up_proj):
        print([int(number) for number in part.weight_scale_inv.flatten()])
    print(norm.tolist())
    try:
        model.load_weights(iter([factors("other", 1, 1, 0)]))
    except KeyError as error:
        print(error)
"""
    printed = run(
        code, [CPU_SHIM, ENGINE_SITE], EBBTIDE_CPU_ENGINE="1", EBBTIDE_ENGINE_WEIGHTS="fp8", SGLANG_USE_CPU_ENGINE="1"
    )
    assert printed.splitlines()[-5:] == [
        "[104, 105, 106, 107, 202, 203, 302, 303]",
        "[402, 403, 406, 407]",
        "[504, 505, 506, 507, 604, 605, 606, 607]",
        "[7.0, 8.0]",
        "'model.mlp.other.weight_scale_inv'",
    ]


@pytest.mark.parametrize(("size", "gathers", "wanted"), [(15, "it", 16), (None, "it", None), (15, "it + 1", 15)])
def test_a_window_has_one_more_key_than_its_distance(
    monkeypatch: pytest.MonkeyPatch, size: int | None, gathers: str, wanted: int | None
) -> None:
    """Unless there is no window, or SGLang counts so itself."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ENGINE_SITE)])
    import ebbtide_triton_windows as plugin

    source = gathers.replace("it", "sliding_window_size")
    monkeypatch.setattr(plugin.inspect, "getsource", lambda _: source)
    monkeypatch.setitem(sys.modules, plugin.MODULE, SimpleNamespace(update_sliding_window_buffer=None))
    back_end = SimpleNamespace(sliding_window_size=size)
    assert plugin.gather_one_more(None, back_end, "runner") is None
    assert back_end.sliding_window_size == wanted


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [*sys.path, str(ENGINE_SITE)])
    import ebbtide_triton_blocks as plugin

    return plugin


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize(
    ("facts", "lengths", "wanted"),
    [
        ({}, [128, 129, 5000, 90], [1, 2, 8, 20]),  # SGLang has counted 1, 1, 1 and 20
        ({}, [128, 129, 5000, 90, 1], [1, 2, 8, 8, 1]),
        ({"max_kv_splits": 4}, [128, 129, 5000, 90], [1, 2, 4, 4]),
        ({"use_mla": True}, [128, 129, 5000, 90], [1, 1, 1, 20]),
    ],
    ids=["few", "more", "a-run-file-s-most", "latent"],
)
def test_a_sample_s_keys_have_blocks_by_its_length(
    blocks: Any, facts: dict[str, object], lengths: list[int], wanted: list[int], dtype: torch.dtype
) -> None:
    """At least those; few samples have more where SGLang's own rule says so."""
    back_end = SimpleNamespace(**{"use_mla": False, "max_kv_splits": 32, **facts})
    of_samples, counted = torch.tensor(lengths, dtype=dtype), torch.ones(len(lengths), dtype=torch.int32)
    counted[3] = 20
    assert blocks.count_by_length("given", back_end, counted, of_samples) == "given"
    assert counted.tolist() == wanted
    assert of_samples.tolist() == lengths


def test_places_of_a_sample_that_drafts_have_the_same_blocks(blocks: Any) -> None:
    counted = torch.ones(4, dtype=torch.int32)
    back_end = SimpleNamespace(use_mla=False, max_kv_splits=32)
    blocks.count_by_length(None, back_end, counted, torch.tensor([300, 10]))
    assert counted.tolist() == [3, 3, 1, 1]


@pytest.mark.parametrize(
    ("queries", "counted", "value_channels", "most"),
    [(4, 4, 2, 32), (5, 5, 2, 8), (8, 3, 2, 32), (4, 256, 2, 32), (8, 256, 2, 8), (256, 256, 1, 32)],
    ids=["few", "many", "padded", "few-of-a-graph", "more-of-a-graph", "latent"],
)
def test_no_more_blocks_are_started_than_are_counted(
    blocks: Any, queries: int, counted: int, value_channels: int, most: int
) -> None:
    """A graph's buffer of counts is for the largest batch; without one it is for the samples, however queries are
    padded. What is left out of the blocks' results is not written to.
    """
    told: list[Any] = []
    parts = torch.zeros(queries, 3, 32, value_channels)
    tensors = torch.zeros(queries, 3, 2), torch.zeros(9, 1, 2), torch.zeros(9, 1, value_channels)
    others = ("out", "begins", "places", parts, "sums", torch.ones(counted), 32, "scale")
    assert (
        blocks.start_as_many(lambda *all_of, **named: told.append((all_of, named)), *tensors, *others, cap=1.0) is None
    )
    ((all_of, named),) = told
    assert named == {"cap": 1.0}
    assert all(one is other for one, other in zip(all_of[:3], tensors, strict=True))
    assert all_of[3:6] == ("out", "begins", "places")
    assert all_of[6].shape == (queries, 3, most, value_channels)
    assert all_of[6].stride() == parts.stride()
    assert all_of[6].data_ptr() == parts.data_ptr()
    assert (all_of[7], len(all_of[8]), *all_of[9:]) == ("sums", counted, most, "scale")


def test_without_switches_nothing_happens() -> None:
    code = "import sys; print('ctypes' in sys.modules, 'logging' in sys.modules, None in sys.modules.values())"
    assert run(code, [ENGINE_SITE]) == "False False False"


def test_hidden_modules_look_not_installed() -> None:
    code = """
import importlib.util, sys
print(importlib.util.find_spec("psutil"))
try:
    import psutil.more
except ImportError as error:
    print(type(error).__name__)
"""
    assert run(code, [ENGINE_SITE], EBBTIDE_HIDE_MODULES="psutil,other") == "None\nModuleNotFoundError"


@pytest.mark.parametrize("call", ['\'x={"k": "s3cret"}\'', "'x=s3cret %s', 1"], ids=["plain", "with-arguments"])
def test_key_is_kept_out_of_logs(call: str) -> None:
    code = f"import logging, sys; logging.basicConfig(stream=sys.stdout); logging.warning({call})"
    out = run(code, [ENGINE_SITE], EBBTIDE_ENGINE_API_KEY="s3cret")
    assert "***" in out
    assert "s3cret" not in out


def test_an_engine_on_a_cpu_imports_no_compiler_and_gets_it_where_it_is_asked_for() -> None:
    code = """
import sys
import ebbtide_cpu_engine
ebbtide_cpu_engine.leave_uncompiled()
import sglang.srt.entrypoints.http_server, torch
assert "torch._dynamo" not in sys.modules, "imported"
print(torch._dynamo.config.__name__, torch._dynamo._trace_wrapped_higher_order_op.__file__ is not None)
"""
    spec = EngineSpec("e", Path("/models/m"), "cpu", "float32", "127.0.0.1", 1)
    variables = environment(spec, {}) | {"EBBTIDE_DIE_WITH_PARENT": "0"}
    assert run(code, [ENGINE_SITE, CPU_SHIM], **variables) == "torch._dynamo.config True"


SERVE = """
import sys, uvicorn
from ebbtide_engine_server import serve_on_held_port

async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"here"})

serve_on_held_port()
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), lifespan="off")
"""


def test_the_server_listens_on_a_port_that_its_agent_holds() -> None:
    held = ReservedPort("127.0.0.1")
    env = os.environ | {"PYTHONPATH": f"{ENGINE_SITE}:{Path(core.__file__).parents[1]}"}
    server = subprocess.Popen([sys.executable, "-c", SERVE, str(held.number)], env=env)
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=8)) as client:  # it connects again for half a minute
            assert client.get(f"http://127.0.0.1:{held.number}").text == "here"
    finally:
        server.kill()
        server.wait(30)
        held.close()


def test_what_configs_lack_is_mended_as_sglang_loads_its_plugins(tmp_path: Path) -> None:
    """A class for MiMo's, without code of the model's directory; the engine's dtype, whatever that of the files."""
    config = {"model_type": "mimo", "vocab_size": 77, "auto_map": {"AutoConfig": "configuration_mimo.MiMoConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = tiny_model(SINKS, tmp_path / "model")
    assert json.loads((model / "config.json").read_text())["dtype"] == "float32"
    code = f"""
from sglang.srt.plugins import load_plugins
load_plugins()
from transformers import AutoConfig
read = AutoConfig.from_pretrained({str(tmp_path)!r}, trust_remote_code=False)
print(type(read).__mro__[1].__name__, read.vocab_size)
from sglang.srt.configs.model_config import ModelConfig
config = ModelConfig({str(model)!r}, dtype="bfloat16")
print(config.dtype, config.hf_config.dtype, config.hf_text_config.dtype)
from transformers import Qwen3_5Config
whole = Qwen3_5Config(text_config={{"num_hidden_layers": 4, "head_dim": 64}})
whole.update({{"text_config": {{"head_dim": 32}}, "language_model_only": True}})
print(whole.text_config.num_hidden_layers, whole.text_config.head_dim, whole.language_model_only)
"""
    printed = run(code, [CPU_SHIM, ENGINE_SITE], EBBTIDE_CPU_ENGINE="1").splitlines()
    assert printed[-3:] == ["Qwen2Config 77", "torch.bfloat16 torch.bfloat16 torch.bfloat16", "4 32 True"]
