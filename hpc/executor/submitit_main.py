"""What a task of a submitted job runs: submitit's own program, after clearing what an earlier start of it left.

    python -u -m hpc.executor.submitit_main FOLDER

A requeued job starts in the same folder: a result of the start before would be taken for this one's, and a half-written
one, of a task that was killed while it wrote, would make submitit refuse to write another.
"""

from __future__ import annotations

import os
import sys


def clear_earlier_result() -> None:
    """Remove this task's result, whole or half-written, of an earlier start of the job."""
    from submitit import JobEnvironment

    result = JobEnvironment().paths.result_pickle
    for path in (result, result.with_suffix(result.suffix + ".save_tmp")):
        path.unlink(missing_ok=True)


def main() -> None:
    """Load the submitted function, call it, write what it returns or raises."""
    os.environ["SUBMITIT_EXECUTOR"] = "slurm"
    os.environ["SUBMITIT_FOLDER"] = sys.argv[1]
    from submitit.core.submission import submitit_main

    clear_earlier_result()
    submitit_main()


if __name__ == "__main__":
    main()
