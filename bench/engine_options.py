"""Write down the options of a version of SGLang for machines without it: core/sglang/options/VERSION.json.

    python bench/engine_options.py 0.5.21 .venv/lib/python3.11/site-packages/sglang
    pip download --no-deps sglang==0.5.16 && unzip sglang-0.5.16-*.whl -d wheel
    python bench/engine_options.py 0.5.16 wheel/sglang

The versions are those of requirements/, and core/sglang/engine_options.py names them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from core.sglang.engine_options import FILES
from core.sglang.option_fields import read_options


def main(version: str, package: str) -> None:
    """Read the package's text, and write the file."""
    options = {name: str(option) for name, option in read_options(Path(package)).items()}
    FILES.mkdir(exist_ok=True)
    (FILES / f"{version}.json").write_text(json.dumps(options, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
