"""The temporary folder of a node's processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from launchers.node import temporary
from launchers.node.temporary import closed_folder, own_temporary_folder

SHARING = 0o002  # the umask of groups that share their files
LEAVE = "import os, tempfile; print(tempfile.NamedTemporaryFile(delete=False).name)"


@pytest.fixture
def common(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A node's temporary folder, and a user who shares files with a group."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(temporary, "MAX_LENGTH", 200)
    monkeypatch.delenv(temporary.COMPILED, raising=False)
    before = os.umask(SHARING)
    yield tmp_path
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_children_write_where_nobody_else_may_enter_and_nothing_stays(common: Path) -> None:
    before = os.environ.get("TMPDIR")
    with own_temporary_folder() as folder:
        left = subprocess.run([sys.executable, "-c", LEAVE], capture_output=True, text=True, check=True).stdout.strip()
        assert Path(left).parent == folder
        assert folder.parent == common
        assert mode(folder) == 0o700
    assert not folder.exists()
    assert os.environ.get("TMPDIR") == before


HOLD = (
    "import time; from launchers.node import temporary; temporary.MAX_LENGTH = 200; "
    "own = temporary.own_temporary_folder(); print(own.__enter__(), flush=True); time.sleep(60)"
)


def test_what_a_killed_one_left_goes_with_the_next_one_and_what_a_living_one_has_stays(common: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(common)}

    def hold() -> tuple[subprocess.Popen[str], Path]:
        started = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True, env=environment)
        assert started.stdout is not None
        return started, Path(started.stdout.readline().strip())

    older = common / "ebbtide-of_an_older_version"
    older.mkdir()
    killed, dead = hold()
    (dead / "socket").touch()
    living, alive = hold()
    try:
        assert dead.exists()
        killed.kill()
        killed.wait()
        with own_temporary_folder() as own:
            assert not dead.exists()
            assert {alive, own, older} <= set(common.iterdir())
    finally:
        living.kill()
        living.wait()


def test_compiled_code_stays_and_is_closed(common: Path) -> None:
    (common / f"ebbtide-compiled-{os.geteuid()}").mkdir()  # of a run before, with the umask's mode
    with own_temporary_folder():
        kept = Path(os.environ[temporary.COMPILED])
    assert kept.parent == common
    assert mode(kept) == 0o700
    assert temporary.COMPILED not in os.environ


def test_the_users_own_choice_for_compiled_code_holds(common: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(temporary.COMPILED, "/somewhere")
    with own_temporary_folder():
        assert os.environ[temporary.COMPILED] == "/somewhere"


def test_a_link_that_somebody_laid_out_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name, target in {"there": "elsewhere", "not there": "nowhere"}.items():
        (tmp_path / name).symlink_to(target)
        assert closed_folder(tmp_path / name) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")
def test_a_folder_of_another_user_is_not_taken(common: Path) -> None:
    taken = common / f"ebbtide-compiled-{os.geteuid()}"
    taken.mkdir()
    os.chown(taken, 65534, 65534)
    assert closed_folder(taken) is None
    with own_temporary_folder() as folder:
        assert os.environ[temporary.COMPILED] == str(folder)


def test_a_path_that_leaves_no_room_for_sockets_is_not_used(common: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporary, "MAX_LENGTH", 74)
    deep = common / ("long" * 20)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with own_temporary_folder() as folder:
        assert folder.parent == Path("/tmp")


def test_the_sites_scratch_is_taken_where_the_node_has_it(common: Path) -> None:
    scratch = common / "scratch"
    with own_temporary_folder(scratch) as folder:
        assert folder.parent == common
    scratch.mkdir()
    with own_temporary_folder(scratch) as folder:
        assert folder.parent == scratch
        assert Path(os.environ["TMPDIR"]) == folder
        assert Path(os.environ[temporary.COMPILED]).parent == scratch
    assert list(scratch.glob(f"{temporary.PREFIX}[!c]*")) == []
