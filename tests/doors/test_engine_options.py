"""The door for SGLang's own options: `placement.engine_options` of a run file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from core.checks import check_run_file
from core.checks.engine_options import engine_options
from core.config import load_run_file
from core.sglang import engine_options as door
from core.sglang.engine_options import FILES, OWNED, PINNED, QUANTISING, SET_BY_US, known_options, pinned_options, words
from core.sglang.launch import EngineSpec, command, environment
from core.sglang.option_fields import Option, read_options
from tests.support.engine_servers import start_engine, wait_up
from tests.support.good_run import write_run
from tests.support.tiny_models import tiny_model
from tests.support.tiny_runs import ebbtide
from tests.support.tiny_runs import write_run as write_tiny_run
from tests.support.waiting import COMMAND_S

ROOT = Path(__file__).parents[2]
SPEC = EngineSpec("e", Path("/models/m"), "cpu", "float32", "127.0.0.1", 4242)


def mistakes(folder: Path, options: str) -> list[str]:
    """What the check says of `placement.engine_options=OPTIONS`, without the key in front."""
    try:
        check_run_file(write_run(folder), [f"placement.engine_options={options}"])
    except ValueError as error:
        return [line.partition("placement.engine_options.")[2] for line in str(error).splitlines()[1:]]
    return []


@pytest.fixture
def no_sglang(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a login node."""
    monkeypatch.setattr(door.PathFinder, "find_spec", lambda name: None)


UNKNOWN = "an unknown option; wanted an option of SGLang 0.5.21, as its ServerArgs names it"
CORRECT = "correct the value, or remove the option"
OURS = "an option that the run sets; wanted an option that no other key sets"
GOOD = "page_size: 16, attention_backend: torch_native, schedule_conservativeness: 1, dllm_fdfo: false, revision: null"
CASES: dict[str, tuple[str, list[str]]] = {
    "unknown": ("{schedule_polcy: lpm}", [f"{UNKNOWN}: did you mean schedule_policy?"]),
    "dashes": ("{schedule-policy: lpm}", [f"{UNKNOWN}: did you mean schedule_policy?"]),
    "no likely name": ("{zzz: 1}", [f"{UNKNOWN}: correct the name, or remove it"]),
    "text for a number": ("{page_size: many}", [f"'many'; wanted a whole number: {CORRECT}"]),
    "bool for a number": ("{page_size: true}", [f"true; wanted a whole number: {CORRECT}"]),
    "number for a switch": ("{enable_mixed_chunk: 1}", [f"1; wanted true or false: {CORRECT}"]),
    "none of its words": (
        "{schedule_policy: lmp}",
        [
            "lmp; wanted dfs-weight, fcfs, hrrn, lof, lpm, priority, random, routing-key, "
            "shortest-prefill-first (SGLang 0.5.21): did you mean lpm?",
        ],
    ),
    "a number that it does not take": (
        "{log_requests_level: 9}",
        ["9; wanted 0, 1, 2, 3 (SGLang 0.5.21): use one of these, or remove the option"],
    ),
    "list for text": ("{schedule_policy: [lpm]}", [f"a list of 1; wanted text: {CORRECT}"]),
    "ours, with a key": ("{tp_size: 2}", [f"{OURS}: set placement.engine_tensor_parallel"]),
    "ours alone": (
        "{api_key: x}",
        [
            "an option that the run sets; wanted an option that the run leaves free: this one bears on who may talk to "
            "an engine: remove it"
        ],
    ),
    "quantised": (
        "{quantization: fp8}",
        [
            "'fp8'; wanted weights as the trainer sends them: a sync does not fit those that an engine has quantised: "
            "remove it; placement.engine_weights has syncs quantise, engine_tensor_parallel gives engines "
            "more room, and a model that has been exported may be quantised for serving"
        ],
    ),
    "not quantised": ("{quantization: null, quantize_and_serve: false}", []),
    "two": (
        "{port: 1, page_sizes: 1}",
        [f"{OURS}: set the site file's port_range", f"{UNKNOWN}: did you mean page_size?"],
    ),
    "good ones": (f"{{{GOOD}}}", []),
}


@pytest.mark.parametrize(("options", "said"), CASES.values(), ids=CASES)
def test_options_are_held_against_sglangs_own(options: str, said: list[str], tmp_path: Path) -> None:
    found = mistakes(tmp_path, options)
    assert [line.partition(": found ")[2] for line in found] == said


def test_an_engine_that_is_never_synced_may_be_quantised(tmp_path: Path) -> None:
    config = load_run_file(write_run(tmp_path), ["placement.engine_options={quantization: fp8}"])
    found = list(engine_options(config))
    assert [one.key for one in found] == ["placement.engine_options.quantization"]
    untrained = config.placement.model_copy(update={"trainers": "none"})
    assert list(engine_options(config.model_copy(update={"placement": untrained}))) == []


def test_what_quantises_are_options_of_a_version() -> None:
    assert {name for version in PINNED.values() for name in pinned_options(version)} >= set(QUANTISING)


@pytest.mark.parametrize(
    ("device", "source"), [("cpu", "0.5.21"), ("cuda", "0.5.16"), ("auto", "0.5.16 or 0.5.21")], ids=lambda one: one
)
def test_a_login_node_knows_the_pinned_versions_options(no_sglang: None, device: str, source: str) -> None:
    told, known = known_options(device)
    assert told == f"SGLang {source}"
    assert ("enable_response_store" in known) == ("0.5.21" in source)  # new in one of them
    assert ("enable_dsa_prefill_context_parallel" in known) == ("0.5.16" in source)  # gone from the other
    assert "lpm" in known["schedule_policy"].choices


def test_the_files_are_of_the_versions_that_are_installed() -> None:
    pins = {
        device: re.search(r"^sglang==(.+)$", (ROOT / "requirements" / name).read_text(), re.M)[1]  # type: ignore[index]
        for device, name in (("cpu", "cpu.txt"), ("cuda", "gpu.txt"))
    }
    assert pins == PINNED
    assert {path.stem for path in FILES.iterdir()} == set(PINNED.values())


def test_the_file_says_what_the_installed_package_says() -> None:
    import importlib.util

    spec = importlib.util.find_spec("sglang")
    assert spec is not None
    assert spec.submodule_search_locations
    source, known = known_options("cpu")
    assert known == read_options(Path(spec.submodule_search_locations[0]))
    assert known == pinned_options(source.removeprefix("SGLang "))


@pytest.mark.parametrize("version", sorted(PINNED.values()))
def test_what_we_set_ourselves_are_options(version: str) -> None:
    assert set(OWNED) | set(SET_BY_US) <= set(pinned_options(version))


ASK_THE_PARSER = """
import argparse, json
from sglang.srt.server_args import ServerArgs
parser = argparse.ArgumentParser()
ServerArgs.add_cli_args(parser)
found = {flag: [action.dest, action.nargs, getattr(action.type, "__name__", None)]
         for flag, action in parser._option_string_actions.items()}
print("\\n" + json.dumps(found))
"""


@pytest.mark.engine
def test_every_option_is_one_of_sglangs_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK_THE_PARSER],
        env=environment(SPEC, os.environ),
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
    )
    assert done.returncode == 0, done.stderr
    flags = json.loads(done.stdout.splitlines()[-1])
    kinds = {"integer": "int", "number": "float"}
    for name, option in pinned_options("0.5.21").items():
        dest, nargs, parse = flags[option.flag or f"--{name.replace('_', '-')}"]
        assert dest == name
        assert (nargs == 0) == (option.kind in ("switch", "on_off")), (name, option)
        assert (nargs in ("*", "+")) == (option.kind == "list"), (name, option)
        if option.kind in kinds:
            assert parse == kinds[option.kind], (name, option)
    assert {dest for dest, *_ in flags.values()} - {"help", "config"} == set(pinned_options("0.5.21"))


def test_values_become_words() -> None:
    known = {
        "listed": Option("list"),
        "tree": Option("json"),
        "named": Option("text", "--other"),
        "no": Option("on_off"),
    }
    options = {"listed": [1, 2], "tree": {"a": [1]}, "named": "x", "no": False, "none": None, "switched_on": True}
    assert list(words(options, known)) == [
        "--listed",
        "1",
        "2",
        "--tree",
        '{"a": [1]}',
        "--other",
        "x",
        "--no-no",
        "--switched-on",
    ]


def test_an_option_takes_the_place_of_ours() -> None:
    spec = EngineSpec(
        "e", Path("/m"), "cpu", "float32", "h", 1, options={"attention_backend": "intel_amx", "sleep_on_idle": False}
    )
    line = " ".join(command(spec, "python"))
    assert line.count("--attention-backend") == 1
    assert "--attention-backend intel_amx" in line
    assert "--sleep-on-idle" not in line


def test_flashinfer_is_there_for_those_who_ask_for_it() -> None:
    asked = EngineSpec("e", Path("/m"), "cuda", "bfloat16", "h", 1, options={"attention_backend": "flashinfer"})
    assert "SGLANG_IS_FLASHINFER_AVAILABLE" not in environment(asked, {})
    plain = EngineSpec("e", Path("/m"), "cuda", "bfloat16", "h", 1, options={"schedule_policy": "lpm"})
    assert environment(plain, {})["SGLANG_IS_FLASHINFER_AVAILABLE"] == "false"


@pytest.mark.parametrize(("said", "tokens"), [({}, 4), ({"num_steps": 5}, 6), ({"num_draft_tokens": 6}, 6)])
def test_a_model_that_drafts_is_told_all_numbers(said: dict[str, int], tokens: int) -> None:
    """SGLang wants all of them or none."""
    options = {"speculative_algorithm": "standalone", **{f"speculative_{key}": value for key, value in said.items()}}
    spec = EngineSpec("e", Path("/m"), "cuda", "bfloat16", "h", 1, options=options)
    line = " ".join(command(spec, "python"))
    wanted = {"num-steps": tokens - 1, "eagle-topk": 1, "num-draft-tokens": tokens}
    assert all(line.count(f"--speculative-{flag} {number}") == 1 for flag, number in wanted.items())
    assert "--enable-draft-weights-cpu-backup" in line
    assert environment(spec, {})["EBBTIDE_DRAFTS"] == "1"


def test_n_grams_have_no_weights_to_keep() -> None:
    spec = EngineSpec("e", Path("/m"), "cuda", "bfloat16", "h", 1, options={"speculative_algorithm": "NGRAM"})
    assert "--enable-draft-weights-cpu-backup" not in command(spec, "python")
    assert environment(spec, {})["EBBTIDE_DRAFTS"] == "1"
    assert "EBBTIDE_DRAFTS" not in environment(SPEC, {})


@pytest.mark.engine
def test_an_engine_has_the_options(tmp_path: Path) -> None:
    options = {
        "schedule_policy": "lof",
        "sleep_on_idle": False,
        "decode_log_interval": 7,
        "log_requests_target": ["stdout"],
    }
    engine = start_engine(tiny_model("llama-tied", tmp_path / "model"), tmp_path / "engine.log", options=options)
    try:
        wait_up(engine)
        info = httpx.get(f"http://{engine.spec.host}:{engine.spec.port}/server_info", timeout=30).json()
    finally:
        engine.process.kill()
        engine.process.wait(30)
    assert {name: info[name] for name in options} == options


@pytest.mark.run
def test_what_an_engine_says_of_an_option_is_shown(tmp_path: Path) -> None:
    options = {"page_size": 16, "chunked_prefill_size": 100}
    run_file = write_tiny_run(tmp_path, placement={"engine_options": options, "start_timeout_s": 180})
    done = ebbtide("run", str(run_file), "--run-dir", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "chunked_prefill_size must be divisible by page_size" in done.stdout + done.stderr


def test_a_choice_of_either_version_is_taken_where_the_machine_is_not_known(no_sglang: None) -> None:
    of_each = {device: set(known_options(device)[1]["attention_backend"].choices) for device in ("cpu", "cuda", "auto")}
    assert {"hpc_ops"} <= of_each["cpu"] - of_each["cuda"]
    assert {"cutlass_mla"} <= of_each["cuda"] - of_each["cpu"]
    assert of_each["auto"] == of_each["cpu"] | of_each["cuda"]


@pytest.mark.parametrize("option", [Option("text"), Option("integer", "--n"), Option("text", "--of", ("a", "b c"))])
def test_an_option_as_text_is_the_same_option(option: Option) -> None:
    assert Option.parse(str(option)) == option
