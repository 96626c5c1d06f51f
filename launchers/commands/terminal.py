"""What all commands share of the terminal: where text goes, how a mistake of the user ends, the common options."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer
from rich.console import Console

USAGE_ERROR = 2

console = Console()
errors = Console(stderr=True)

Precision = Literal["bfloat16", "float32", "fp8", "int8"]  # that weights are written in
RunFile = Annotated[Path, typer.Argument(help="The YAML file that describes the run.")]
RunDir = Annotated[Path, typer.Argument(help="The run directory.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change any key of the run file, e.g. --set train.lr=1e-6."),
]
NewRunDir = Annotated[
    Path | None, typer.Option("--run-dir", help="Where everything goes; a new folder under runs/ if left out.")
]


def say(text: str) -> None:
    """A line as it is: no colours guessed, no markup read, no line broken inside a path."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def note(text: str) -> None:
    """A line that is no result: on stderr, as it is."""
    errors.print(text, highlight=False, markup=False, soft_wrap=True)


def fail(message: str, code: int = USAGE_ERROR) -> NoReturn:
    """End the command with a message on stderr."""
    note(message)
    raise typer.Exit(code)


def refuse(mistakes: Sequence[object]) -> NoReturn:
    """End the command with all that is wrong, one a line."""
    fail("\n".join(map(str, mistakes)))


@contextmanager
def bar_of_weights() -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, from the first call of what is given: with the part of the weights that is done, and all."""
    from rich.progress import Progress

    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("weights", total=None, visible=False)
        yield lambda done, whole: bar.update(task, completed=done, total=whole, visible=True)
