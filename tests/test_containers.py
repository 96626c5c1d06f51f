"""The files of the container image: both kinds have the same in them, by one script, and stay in step with the rest."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from hpc.site.files import load_site

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "containers"
DOCKERFILE, DEFINITION = FOLDER / "Dockerfile", FOLDER / "ebbtide.def"
SCRIPTS = sorted(FOLDER.glob("*.sh"))
# what a Dockerfile and a definition may say, so that a misspelt word is found without a builder
INSTRUCTIONS = {"ARG", "FROM", "COPY", "RUN", "ENV", "CMD"}
SECTIONS = {"arguments", "files", "post", "environment", "runscript"}


def instructions() -> list[tuple[str, str]]:
    """Word and rest of each line of the Dockerfile."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


def sections() -> dict[str, str]:
    """Text of each section of the definition, and of its head under no name."""
    head, *parts = re.split(r"^%", DEFINITION.read_text(), flags=re.M)
    return {"": head, **{name: text for name, _, text in (part.partition("\n") for part in parts)}}


def arguments() -> tuple[dict[str, str], dict[str, str]]:
    """What both may be given, with its default."""
    docker = dict(rest.split("=", 1) for word, rest in instructions() if word == "ARG")
    apptainer = dict(line.strip().split("=", 1) for line in sections()["arguments"].split())
    return docker, apptainer


def test_both_say_only_words_that_their_builders_know() -> None:
    assert {word for word, _ in instructions()} == INSTRUCTIONS
    assert set(sections()) - {""} == SECTIONS
    assert "Bootstrap: docker\n" in sections()[""]


def test_both_begin_with_the_same_image_and_call_the_same_script() -> None:
    docker, apptainer = arguments()
    assert docker == apptainer
    assert ("RUN", "GPU=$GPU /opt/ebbtide/containers/install.sh") in instructions()
    assert sections()["post"].strip() == "GPU={{ GPU }} /opt/ebbtide/containers/install.sh"
    assert ("COPY", ". /opt/ebbtide") in instructions()
    assert sections()["files"].strip() == ". /opt/ebbtide"
    assert {"BASE", "GPU"} == set(docker) == set(re.findall(r"{{ (\w+) }}", DEFINITION.read_text()))


def test_the_image_is_pinned_and_has_the_cuda_that_the_packages_were_tried_with() -> None:
    base = arguments()[0]["BASE"]
    tried = re.search(r"CUDA (\d+)", (ROOT / "requirements" / "gpu.txt").read_text())
    assert tried
    assert re.fullmatch(rf"nvidia/cuda:{tried[1]}\.\d+\.\d+-devel-ubuntu24\.04", base)


def test_the_environment_is_where_the_script_makes_it() -> None:
    made = re.search(r"make install VENV=(\S+)", (FOLDER / "install.sh").read_text())
    assert made
    assert ("ENV", f"PATH={made[1]}/bin:$PATH") in instructions()
    assert sections()["environment"].strip() == f"export PATH={made[1]}/bin:$PATH"
    command = ["make", "--dry-run", "--always-make", "install", f"VENV={made[1]}", "GPU=yes"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert f"{made[1]}/bin/pip install --quiet -r requirements/gpu.txt" in " ".join(shown)


def test_the_pages_site_file_is_one(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "containers.md").read_text()
    site = tmp_path / "site.yaml"
    site.write_text(text.partition("```yaml\n")[2].partition("```")[0])
    assert load_site(site).container.image == "/lustre/images/ebbtide.sif"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_posix(script: Path) -> None:
    assert script.read_text().startswith("#!/bin/sh\n")
    assert script.stat().st_mode & 0o111
    subprocess.run(["sh", "-n", script], check=True)


def test_without_a_builder_it_says_what_was_looked_for(tmp_path: Path) -> None:
    for name in ("git", "tar", "mktemp", "rm", "mkdir", "dirname"):
        found = subprocess.run(["sh", "-c", f"command -v {name}"], capture_output=True, text=True, check=True)
        (tmp_path / name).symlink_to(found.stdout.strip())
    done = subprocess.run(
        ["/bin/sh", FOLDER / "build.sh"], env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "nothing is built: found none of docker (running), podman, buildah, apptainer, singularity\n"
    )


def test_what_is_built_is_the_last_commit_with_the_arguments(tmp_path: Path) -> None:
    """By builders that only tell what they were given."""
    tell = (
        'echo "$(basename "$0") $*"; for last; do :; done; [ ! -d "$last" ] || cd "$last"; ls -d setup.cfg .git; exit 0'
    )
    for name, does in (("buildah", tell), ("apptainer", tell), ("docker", "exit 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["sh", FOLDER / "build.sh"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "FOR": "cpus", "BASE": "debian:12"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "apptainer build --force --build-arg GPU= --build-arg BASE=debian:12 " in done.stdout
    assert "buildah build --build-arg GPU= --build-arg BASE=debian:12 -t ebbtide -f " in done.stdout
    assert done.stdout.splitlines().count("setup.cfg") == 2
    assert ".git" not in done.stdout.splitlines()
