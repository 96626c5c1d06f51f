"""How the test cluster lets ordinary users run a program that lies where only root may enter."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.slurm_cluster import why_not
from tests.slurm_cluster.people import MAX_PEOPLE, Opening, left_in, openings, people, sweep

SCRIPT = Path(__file__).parents[1] / "slurm_cluster" / "people.sh"


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own are closed."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def home(place: Path) -> Path:
    """Closed, with an interpreter, a closed checkout and something else in it."""
    home = place / "home"
    for name in ("python/3.11/bin", "code/core", "private"):
        (home / name).mkdir(parents=True)
    (home / "code" / "Makefile").write_text("all:\n")
    (home / "python" / "3.11" / "bin" / "python").write_text("#!/bin/sh\necho it runs\n")
    (home / "python" / "3.11" / "bin" / "python").chmod(0o755)
    (home / "code").chmod(0o700)
    home.chmod(0o700)
    return home


def test_only_what_is_needed_of_the_outermost_closed_folder_is_shown(home: Path) -> None:
    """Nothing inside of something else that is needed is named; what is closed itself is shown by its entries."""
    wanted = [home / "python/3.11", home / "python/3.11/bin", home / "code", home / "code/core", Path("/usr")]
    assert openings(wanted) == [
        Opening(home, (home / "code/Makefile", home / "code/core", home / "python/3.11")),
    ]


def test_no_two_clusters_have_a_user_in_common(tmp_path: Path) -> None:
    uids = [person.uid for index in (1, 2) for person in people(tmp_path, index, MAX_PEOPLE)]
    assert len(set(uids)) == 2 * MAX_PEOPLE
    with pytest.raises(ValueError, match="found 11 people, wanted at most 10"):
        people(tmp_path, 1, MAX_PEOPLE + 1)


@pytest.mark.slurm
@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_a_user_enters_the_closed_home_in_the_namespace_only(home: Path, place: Path) -> None:
    cluster = place / "cluster"
    (cluster / "held").mkdir(parents=True)
    (person,) = people(cluster, 199, 1)
    (cluster / "passwd").write_text(Path("/etc/passwd").read_text() + person.passwd)
    (cluster / "group").write_text(Path("/etc/group").read_text())
    (cluster / "openings").write_text("".join(o.line for o in openings([home / "python/3.11", home / "code"])))
    person.home.mkdir(parents=True)
    said = f"id -un; {home}/python/3.11/bin/python; cat {home}/code/Makefile; ls {home} {home}/code"
    command = [*person.switch({}), "bash", "-c", said]
    shown = subprocess.run(["unshare", "--mount", "bash", SCRIPT, cluster, *command], capture_output=True, text=True)
    assert shown.stdout.split() == [
        *("person1", "it", "runs", "all:"),
        *(f"{home}:", "code", "python", f"{home}/code:", "Makefile", "core"),
    ], shown.stderr
    assert subprocess.run(command, capture_output=True, text=True).stdout == f"{person.uid}\n"  # outside: nothing
    assert sorted(path.name for path in home.iterdir()) == ["code", "private", "python"]
    assert list((cluster / "held").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_what_users_leave_on_the_machine_goes(tmp_path: Path) -> None:
    (person,) = people(tmp_path, 198, 1)
    left = Path(f"/tmp/left-by-{person.uid}")
    (left / "folder").mkdir(parents=True)
    os.chown(left, person.uid, person.gid)
    assert left_in(Path("/tmp"), [person]) == [left]
    sweep([person])
    assert not left.exists()
