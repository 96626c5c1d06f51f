"""`ebbtide plan`, and the same check in submit and run: in a Python without torch, and on real example files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.launchers.commands.test_submit_command import LOGIN_NODE, Login, login
from tests.support.command_stand_ins import ROOT, ebbtide_with, stand_in
from tests.support.tiny_runs import write_run

__all__ = ["login"]

EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
PAGE = ROOT / "docs" / "plan.md"
WIDTH = 100
SMALL = "2GiB"  # less than the processes alone need


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


def plan(folder: Path, *words: str | Path, cwd: Path | None = None) -> Any:
    """The command on a login node without Slurm or GPU."""
    (folder / "bin").mkdir(exist_ok=True)
    stand_in(folder / "bin", "nvidia-smi", "exit 9")
    return ebbtide_with(
        folder / "bin", "plan", *map(str, words), cwd=cwd or folder, before=LOGIN_NODE, env={"HOME": str(folder)}
    )


def table(text: str) -> dict[str, list[str]]:
    """The lines of the table by owner and part."""
    rows: dict[str, list[str]] = {}
    owner = ""
    for line in text[text.index("GiB  ") :].split("\n\n")[0].splitlines():
        owner = line[:9].strip() or owner
        rows[f"{owner} {line[9:24].strip()}".strip()] = line[24:].split()
    return rows


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_the_examples(example: Path, tmp_path: Path) -> None:
    done = plan(tmp_path, example, "--gpu-memory", "h100")
    assert done.returncode == 0, done.stderr
    rows = table(done.stdout)
    assert rows["GiB"] == ["sync", "rollout", "eval", "score", "update", "save"]
    assert rows["trainer parameters"] == ["0.25"] * 6, "a model so small stays where it is"
    sums = [sum(float(x) for name, row in rows.items() if (x := row[i]) != "–" and " " in name) for i in range(6)]
    assert [float(x) for x in rows["sum"]] == pytest.approx(sums, abs=0.05)
    assert "verdict   fits: " in done.stdout
    assert "trainer rank 0" in done.stdout
    assert [line for line in done.stdout.splitlines() if len(line) > WIDTH] == []


def test_the_page_shows_what_the_command_says(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    shown = re.findall(r"```bash\n(ebbtide plan [^\n]*)\n```\n\n```text\n(.*?)```", page, re.DOTALL)
    assert len(shown) == 1
    for line, text in shown:
        done = plan(tmp_path, *line.split()[2:], cwd=ROOT)
        assert done.stdout.strip() == text.strip()
        assert done.returncode == 0


def test_the_page_shows_refusals(tmp_path: Path) -> None:
    shown = re.findall(r"```text\n\$ (ebbtide plan [^\n]*)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(shown) == 3
    for line, text in shown:
        done = plan(tmp_path, *line.split()[2:], cwd=ROOT)
        assert done.returncode == 2
        mistakes = [one for one in done.stderr.splitlines() if "; wanted " in one]
        assert " ".join(mistakes) == " ".join(text.split())


def test_without_known_gpus_it_goes_through_the_usual_ones(run_file: Path, tmp_path: Path) -> None:
    done = plan(tmp_path, run_file)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("your GPUs are not known, taken for H100 80 GB: name them with --gpu-memory or")
    for name in ("H200 141 GB", "H100 80 GB", "A100 40 GB", "L40S 48 GB", "L4 24 GB"):
        assert f"\n{name:<14}fits: " in done.stdout


def test_gpus_of_the_site_of_this_machine_and_of_the_command(run_file: Path, tmp_path: Path) -> None:
    site = tmp_path / "mine.yaml"
    site.write_text(yaml.safe_dump({"gpu_type": "a100-80gb", "gpus_per_node": 4}))
    assert (
        "each GPU: 79.10 GiB (A100 80 GB, gpu_type of the site file)" in plan(tmp_path, run_file, "--site", site).stdout
    )
    site.write_text(yaml.safe_dump({"gpu_type": "a100-80gb", "gpu_memory": "40GiB"}))
    assert "each GPU: 40.00 GiB (gpu_memory of the site file)" in plan(tmp_path, run_file, "--site", site).stdout
    words = ("--site", site, "--gpu-memory", "h200")
    assert "each GPU: 139.70 GiB (H200 141 GB)" in plan(tmp_path, run_file, *words).stdout
    stand_in(tmp_path / "smi", "nvidia-smi", "printf 'GPU-a, 81000, 81559\\nGPU-b, 81000, 24576\\n'")
    done = ebbtide_with(tmp_path / "smi", "plan", str(run_file), cwd=tmp_path, before=LOGIN_NODE)
    assert "each GPU: 23.50 GiB (of this machine)" in done.stdout
    stand_in(tmp_path / "smi", "nvidia-smi", "printf 'GPU-a, 81000, 81559, 9.0\\nGPU-b, 15000, 15360, 7.5\\n'")
    done = ebbtide_with(tmp_path / "smi", "plan", str(run_file), cwd=tmp_path, before=LOGIN_NODE)
    assert "found GPUs of compute capability 7.5 (of this machine)" in done.stderr


def test_a_run_on_cpus_is_planned_for_the_memory_of_a_node(run_file: Path, tmp_path: Path) -> None:
    done = plan(tmp_path, run_file, "--set", "placement.device=cpu")
    assert done.returncode == 0, done.stderr
    assert re.search(r"host memory of a node: \d+\.\d\d GiB \(this machine\)", done.stdout)
    assert "page-locked" not in done.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--gpu-memory", "lots"), "--gpu-memory: found 'lots'; wanted a size such as 80GiB, or a card such as h200"),
        (("--set", "placement.tensor_parallel=3"), "placement.tensor_parallel: found tensor_parallel 3"),
        (("--set", "model.path=/nowhere"), "model: found no shape at /nowhere; wanted a directory with a config.json"),
        (("--gpu-memory", "v100-32gb"), "found GPUs of compute capability 7.0 (V100 32 GB); wanted 8.0 or newer"),
        (("--gpu-memory", "a100"), "found 'a100'; wanted a card of one size: write a100-40gb or a100-80gb"),
        (
            ("--gpu-memory", "h100", "--set", "placement.device=cpu"),
            "--gpu-memory: found placement.device cpu beside it; wanted one of the two",
        ),
        (("--gpu-memory", SMALL), "at most the 2.00 GiB of a GPU: use 1 GPU of 22.0 GiB, the smallest machine"),
    ],
)
def test_what_cannot_be_planned_or_does_not_fit(
    words: tuple[str, ...], says: str, run_file: Path, tmp_path: Path
) -> None:
    done = plan(tmp_path, run_file, *words)
    assert done.returncode == 2
    assert says in done.stderr


@pytest.mark.parametrize("verb", ["submit", "sbatch", "sweep"])
def test_a_submission_that_does_not_fit_the_sites_gpus_is_refused(verb: str, login: Login, run_file: Path) -> None:
    login.site(gpu_memory=SMALL)
    grid = ("--grid", "train.lr=1e-3,1e-4") if verb == "sweep" else ()
    done = login(verb, run_file, *grid, "--set", "placement.device=cuda")
    assert done.returncode == 2
    assert done.stderr.startswith("tiny cannot be submitted, ")
    assert "train.max_tokens_per_micro_batch: found " in done.stderr
    assert login.sent() == []


def test_where_the_sites_gpus_are_not_known_submit_says_so_and_goes_on(login: Login, run_file: Path) -> None:
    done = login("submit", run_file, "--run-dir", "out", "--set", "placement.device=cuda")
    assert done.returncode == 0, done.stderr
    assert "gpu_memory: found a site file without gpu_memory and without a gpu_type that is known" in done.stderr
    assert "H100 80 GB fits" in done.stderr
    assert len(login.sent()) == 1
    login.site(gpu_memory="80GiB")
    done = login("submit", run_file, "--run-dir", "second", "--set", "placement.device=cuda")
    assert done.stderr == ""


def test_run_refuses_what_the_gpus_of_this_machine_do_not_hold(run_file: Path, tmp_path: Path) -> None:
    stand_in(tmp_path / "bin", "nvidia-smi", "echo 'GPU-a, 4000, 4096'")
    done = ebbtide_with(tmp_path / "bin", "run", str(run_file), "--run-dir", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert "wanted at most the 3.50 GiB of a GPU" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("slurm.time=UNLIMITED", "slurm.time: found 'UNLIMITED'; wanted a time limit as MM"),
        ("slurm.time='0'", "slurm.time: found '0'; wanted a time limit above zero"),
        ("slurm.exclude=['n[1-']", "slurm.exclude"),
        ("name=../esc", "name: found '../esc'; wanted a name of letters"),
    ],
)
def test_what_a_job_cannot_be_made_of_is_told_in_a_line(
    override: str, says: str, run_file: Path, tmp_path: Path
) -> None:
    done = plan(tmp_path, run_file, "--set", override)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
