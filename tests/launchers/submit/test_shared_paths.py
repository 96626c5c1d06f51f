from __future__ import annotations

from pathlib import Path

import pytest

from launchers.submit.shared_paths import kind_of, mounts, unshared

KINDS = {Path("/"): "ext4", Path("/lustre"): "lustre", Path("/lustre/fast"): "tmpfs"}
LUSTRE = (Path("/lustre"),)


@pytest.mark.parametrize(
    ("path", "shared"),
    [("/home/you/runs/a", ()), ("/lustre/runs/a", ()), ("/lustre/runs/a", LUSTRE), ("/tmp/a", (Path("/tmp"),))],
)
def test_good(path: str, shared: tuple[Path, ...]) -> None:
    assert unshared(Path(path), shared, KINDS) is None


@pytest.mark.parametrize(
    ("path", "shared", "message"),
    [
        ("/tmp/a", (), "found /tmp/a, in /tmp, which every node has for itself; wanted a folder that all nodes see"),
        ("/dev/shm/a", (), "in /dev/shm, which every node"),
        ("/lustre/fast/a", (), "on a tmpfs of this machine"),
        ("/home/a", LUSTRE, "found /home/a; wanted a folder in /lustre (shared_filesystems in the site file)"),
        ("/lustre2/a", LUSTRE, "found /lustre2/a"),
    ],
)
def test_bad(path: str, shared: tuple[Path, ...], message: str) -> None:
    assert message in str(unshared(Path(path), shared, KINDS))


def test_mounts_of_this_machine(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "36 35 98:0 / / rw shared:1 - ext4 /dev/root rw\n"
        "37 36 0:9 / /mnt/a\\040b rw,noatime master:1 - nfs4 host:/x rw\n"
        "broken\n"
    )
    assert mounts(table) == {Path("/"): "ext4", Path("/mnt/a b"): "nfs4"}
    assert kind_of(Path("/mnt/a b/c"), mounts(table)) == "nfs4"
    assert mounts(tmp_path / "none") == {}
    assert Path("/") in mounts()
