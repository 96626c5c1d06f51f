from __future__ import annotations

import subprocess
import sys


def test_import_leaves_torch_out() -> None:
    code = "import sys, modelcfg; modelcfg.load('smollm2-135m'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
