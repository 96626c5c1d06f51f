"""What several files of tests of whole runs share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tiny_runs import ebbtide, write_run


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of four steps without interruption, which leaves its model after two, evaluated, as well."""
    folder = tmp_path_factory.mktemp("straight")
    held_out = {"path": "data.jsonl", "max_prompt_tokens": 64, "size": 3}
    evaluation = {"interval": 2, "n_samples_per_prompt": 2, "temperature": 1.0, "sets": {"held_out": held_out}}
    run_file = write_run(folder, checkpoint={"save_hf": "every 2"}, eval=evaluation)
    done = ebbtide("run", str(run_file), "--run-dir", str(folder / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resume" not in done.stdout
    (folder / "out" / "stdout.txt").write_text(done.stdout)
    return folder / "out"
