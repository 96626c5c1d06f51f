"""`ebbtide export`: a run's checkpoint as a HuggingFace directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launchers.commands.directories import existing_run_dir
from launchers.commands.terminal import Precision, RunDir, bar_of_weights, note, say

EXAMPLE = "ebbtide export runs/NAME models/trained --step 8 --dtype bfloat16"


def command(
    run_dir: RunDir,
    out: Annotated[Path, typer.Argument(help="The folder to be made; it must not be there yet.")],
    step: Annotated[
        int | None, typer.Option(help="After how many steps: a checkpoint that is kept; the newest if left out.")
    ] = None,
    dtype: Annotated[
        Precision | None,
        typer.Option(help="Of the weights, fp8 in blocks, int8 in rows; as the trainer has them if left out."),
    ] = None,
    adapters: Annotated[
        bool,
        typer.Option(
            "--adapters", help="Of a run with train.lora the adapters alone, as PEFT reads them; else merged."
        ),
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read what was written, and compare each weight with the checkpoint's.")
    ] = False,
) -> None:
    """Write the model of a checkpoint as a HuggingFace directory. Works on a login node, while the run goes on.

    The layout of the run does not matter. The folder appears when it is complete; of weights, one is in memory at a
    time.
    """
    from launchers.transfer.export import export
    from launchers.transfer.new_directory import PRECISIONS

    run = existing_run_dir(run_dir)
    wanted = PRECISIONS[dtype] if dtype else None
    with bar_of_weights() as wrote:
        found = export(run, step, out, wanted, verify=verify, adapters=adapters, told=note, wrote=wrote)
    size = f"{found.num_files} {'file' if found.num_files == 1 else 'files'}, {found.num_bytes / 2**30:.2f} GiB"
    what = "the adapters" if adapters else "the model"
    say(f"written: {found.directory}, {what} after step {found.step} ({found.dtype}, {size})")
