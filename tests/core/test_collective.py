"""Control collectives between two real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

RANK_MAIN = """
import json, os, sys
from datetime import timedelta
import torch.distributed as dist
from core.collective import any_rank, broadcast, gather_lists
dist.init_process_group("gloo", timeout=timedelta(seconds=60))
rank = dist.get_rank()
result = [gather_lists([rank, "x" * rank]), broadcast({"from": rank}), any_rank(rank == 1), any_rank(False)]
open(os.path.join(sys.argv[1], str(rank)), "w").write(json.dumps(result))
dist.destroy_process_group()
"""


def test_two_processes_see_the_same(tmp_path: Path) -> None:
    main = tmp_path / "main.py"
    main.write_text(RANK_MAIN)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(main)]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    expected = [[0, "", 1, "x"], {"from": 0}, True, False]
    assert [json.loads((tmp_path / str(rank)).read_text()) for rank in range(2)] == [expected, expected]
