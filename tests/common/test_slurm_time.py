from __future__ import annotations

import ctypes
from ctypes.util import find_library
from pathlib import Path

import pytest

from common.mistake import Wrong
from common.slurm_time import format_time, time_limit_minutes, time_limit_s

SECONDS = {
    "90": 5400,
    "1:30": 90,
    "90:90": 5490,
    "0:45": 45,
    "04:00:00": 14_400,
    "1:123:00": 10_980,
    "1-0": 86_400,
    "1-2:345": 114_300,
    "1-02:30": 95_400,
    "2-00:00:10": 172_810,
    "1-0:0:90": 86_490,
}
REFUSED = ["", "1h", "1:2:3:4", "1-2:3:4:5", "1-2-3", "1:", ":30", "1::2", "1-:2", " 90", "90 ", "٣"]


@pytest.mark.parametrize(("text", "seconds"), SECONDS.items())
def test_what_slurm_takes(text: str, seconds: int) -> None:
    assert time_limit_s(text) == seconds
    assert time_limit_minutes(text) == -(-seconds // 60)
    assert time_limit_minutes(format_time(time_limit_minutes(text))) == time_limit_minutes(text)


@pytest.mark.parametrize("text", [*REFUSED, "0", "00:00:00", "0-0", "-5", "UNLIMITED", "1-"])
def test_what_is_refused(text: str) -> None:
    with pytest.raises(Wrong, match="write for example"):
        time_limit_s(text)


@pytest.mark.parametrize("text", [*SECONDS, *REFUSED])
def test_slurms_own_library_says_the_same(text: str) -> None:
    library = _slurm()
    if library is None:
        pytest.skip("Slurm's library is not on this machine")
    seconds = library.slurm_time_str2secs(text.encode())
    assert (seconds if seconds >= 0 else None) == SECONDS.get(text)


def _slurm() -> ctypes.CDLL | None:
    places = [find_library("slurmfull"), *map(str, Path("/usr/lib").glob("*/slurm*/libslurmfull.so"))]
    found = next((place for place in places if place), None)
    library = ctypes.CDLL(found) if found else None
    return library if library is not None and hasattr(library, "slurm_time_str2secs") else None
