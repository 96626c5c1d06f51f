"""A run directory of an earlier version goes on as that version would have gone on.

`data/run_of_96dba7f.tar.xz` is a tiny run of commit 96dba7f: all four steps in its step files, and the checkpoint after
two of them, as if it had been interrupted there.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from core.trajectory import step_path
from tests.support.tiny_runs import ebbtide, losses

ARCHIVE = Path(__file__).parent / "data" / "run_of_96dba7f.tar.xz"
SAME_ON_ANY_CPU = ("response_tokens", "response_offsets", "prompt_tokens", "reward", "weight_version")
AS_ROUNDED = ("logprobs_engine", "logprobs_old", "advantage")


def read(path: Path, name: str) -> np.ndarray:
    with h5py.File(path) as file:
        return np.asarray(file[name][...])


@pytest.mark.run
def test_a_run_directory_of_an_earlier_version_resumes(tmp_path: Path) -> None:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    run_dir, then = tmp_path / "out", tmp_path / "then"
    run_file = run_dir / "run.yaml"
    run_file.write_text(run_file.read_text().replace("RUN_FOLDER", str(tmp_path)))
    expected = losses(run_dir)
    shutil.copytree(run_dir / "steps", then / "steps")
    for step in (2, 3):
        step_path(run_dir, step).unlink()

    done = ebbtide("resume", str(run_dir))

    assert done.returncode == 0, done.stdout + done.stderr
    assert losses(run_dir) == pytest.approx(expected, abs=1e-5)
    for step in (2, 3):
        for name in SAME_ON_ANY_CPU:
            assert np.array_equal(read(step_path(run_dir, step), name), read(step_path(then, step), name)), (step, name)
        for name in AS_ROUNDED:
            now, before = read(step_path(run_dir, step), name), read(step_path(then, step), name)
            np.testing.assert_allclose(now, before, atol=1e-4, err_msg=f"{name} of step {step}")
