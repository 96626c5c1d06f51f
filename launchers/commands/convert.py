"""`ebbtide convert`: a model's directory as another one with whole weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launchers.commands.terminal import Precision, bar_of_weights, note, say

EXAMPLE = "ebbtide convert models/quantised models/whole --dtype bfloat16"


def command(
    source: Annotated[str, typer.Argument(help="As model.path: a directory, a name of the hub, or package:NAME.")],
    out: Annotated[Path, typer.Argument(help="The folder to be made; it must not be there yet.")],
    dtype: Annotated[
        Precision | None,
        typer.Option(
            help="Of the weights, fp8 in blocks, int8 in rows; as they are if left out, of quantised ones bfloat16."
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read what was written, and compare each weight with the source's.")
    ] = False,
) -> None:
    """Write a model whose weights are quantised, or in another precision, with whole ones. Works on a login node.

    A run reads such models as they are; an evaluation, other programs and a second look want whole weights. The folder
    appears when it is complete; of weights, one is in memory at a time.
    """
    from launchers.transfer.convert import convert
    from launchers.transfer.new_directory import PRECISIONS

    wanted = PRECISIONS[dtype] if dtype else None
    with bar_of_weights() as wrote:
        found = convert(source, out, wanted, verify=verify, told=note, wrote=wrote)
    quantised = f"{found.num_quantised} weights were quantised" if found.num_quantised else "none was quantised"
    say(f"written: {found.directory} ({found.dtype}, {found.num_bytes / 2**30:.2f} GiB; {quantised})")
