"""`ebbtide fetch`: a model or a data set from the hub."""

from __future__ import annotations

from typing import Annotated

import typer

from launchers.commands.terminal import say

EXAMPLE = "ebbtide fetch Qwen/Qwen2.5-0.5B-Instruct"


def command(
    name: Annotated[str, typer.Argument(help="OWNER/NAME; of a data set also OWNER/NAME/FOLDER.")],
    dataset: Annotated[bool, typer.Option("--dataset", help="A data set, not a model.")] = False,
    revision: Annotated[str | None, typer.Option(help="A branch, tag or commit; the newest if left out.")] = None,
) -> None:
    """Fetch a model or a data set from the hub into its cache, on a machine with internet.

    A run file then names it as the hub does. HF_HOME says where the cache is: all nodes have to see it. What is there
    is not fetched again, and what broke off goes on. HF_TOKEN opens what is private or gated.
    """
    from launchers.transfer.contents import about_data, about_model
    from launchers.transfer.fetch import fetch

    found = fetch(name, "dataset" if dataset else "model", revision)
    say((about_data if dataset else about_model)(name, found))
