from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from common.files import renamed_when_complete, write_atomically
from hpc.site.files import Site, dump_site


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomically(path, "before")
    with suppress(ZeroDivisionError), renamed_when_complete(path) as unfinished:
        unfinished.write_text("half")
        raise ZeroDivisionError
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a", "before")]


def test_a_site_file_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_text", lambda self, *_, **__: [self.touch(), (_ for _ in ()).throw(OSError(28))])
    with pytest.raises(OSError):
        dump_site(Site(account="a"), tmp_path / "site.yaml")
    assert list(tmp_path.iterdir()) == []


def test_content_and_name_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real = {"fsync": os.fsync, "replace": os.replace}

    def record(name: str, target: str) -> None:
        order.append(f"{name} {'folder' if os.path.isdir(target) else 'file'}")

    monkeypatch.setattr(os, "fsync", lambda fd: [record("fsync", f"/proc/self/fd/{fd}"), real["fsync"](fd)])
    monkeypatch.setattr(os, "replace", lambda a, b: [record("replace", a), real["replace"](a, b)])
    dump_site(Site(account="a"), tmp_path / "site.yaml")
    assert order == ["fsync file", "replace file", "fsync folder"]
