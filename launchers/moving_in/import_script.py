"""A launch script of slime, and the run file that it becomes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.mistake import Mistake
from common.yaml_document import parse_document
from core.config.keys import RUN_FILE
from core.config.validate import validate
from launchers.moving_in.draft import Draft
from launchers.moving_in.flags import Flags
from launchers.moving_in.render import run_file
from launchers.moving_in.rules.others import variables
from launchers.moving_in.rules.shape import shape_of, unknown_family
from launchers.moving_in.shell import Followed, ScriptError, follow
from launchers.moving_in.site_hint import site_hint, variables_of
from launchers.moving_in.translate import translate
from modelcfg import ModelShape


@dataclass(frozen=True)
class Imported:
    """What a script became.

    Attributes:
        text: of the run file.
        mistakes: of keys and values in it that one key alone shows; empty as a rule.
        shape: of the model, as the flags say it; None: they do not, or it is of no family here.
        unknown_family: what its model has that no family here has; empty: nothing that flags show.
    """

    draft: Draft
    text: str
    mistakes: list[Mistake]
    shape: ModelShape | None
    unknown_family: str

    @property
    def model(self) -> str | None:
        """The name of `ebbtide models` that has this shape; None: there is none."""
        name: str | None = self.draft.value("model.name", None)
        return name


def import_script(
    script: Path, environment: Mapping[str, str] | None = None, model_folders: Sequence[Path] = ()
) -> Imported:
    """Read a script and translate the trainer's flags. Nothing is run.

    Raises:
        ScriptError: it cannot be read, or starts no trainer.
    """
    if script.suffix == ".py":
        remedy = "give the bash script; of a Python launcher, write the command that it runs into one"
        raise ScriptError(None, "a Python program", "a launch script in bash", remedy)
    followed = follow(script, environment or {}, model_folders)
    if not followed.launches:
        found = "no start of slime's train.py"
        remedy = "give the script that has `ray job submit … -- python3 train.py …`, or `python3 train.py …`"
        raise ScriptError(None, found, "a launch script of slime", remedy)
    launch = followed.launches[0]
    flags = Flags(launch.arguments, followed.gaps)
    draft = translate(launch.program, flags)
    variables(variables_of(launch, followed.gaps), draft)
    draft.put("name", script.stem.removeprefix("run-").removeprefix("run_") or "run", None, f"from {script.name}")
    draft.todo = [*_gaps(followed, draft), *draft.todo]
    _notices(draft, followed)
    head = [f"Made by `ebbtide import-slime {script.name}`. Keys: docs/run-file.md; moving in: docs/moving-in.md."]
    if draft.losses("task"):
        head.append("THIS IS NOT THE SCRIPT'S TRAINING, of which a part is not built: see NO COUNTERPART.")
    if followed.assumed:
        head.append(f"Taken for false, as only a run could decide: {', '.join(dict.fromkeys(followed.assumed))}.")
    text = run_file(draft, [*head, *site_hint(draft, launch, followed.gaps)])
    document, mistakes = parse_document(text, RUN_FILE)
    if not mistakes:
        _, mistakes = validate(document)
    return Imported(draft, text, mistakes, shape_of(flags), unknown_family(flags))


def _gaps(followed: Followed, draft: Draft) -> Iterator[str]:
    """What the script leaves to its caller, or to a command, and the keys that depend on it."""
    for gap in followed.gaps.all:
        keys = sorted(key for key, setting in draft.settings.items() if gap.text in setting.source)
        if not keys:
            continue
        listed = ", ".join(keys)
        if gap.variable:
            yield f"{gap.text} is not set in the script: give it with --env {gap.variable}=VALUE ({listed})"
        else:
            yield f"{gap.text} is what a command prints, and none is run: put it in by hand ({listed})"


def _notices(draft: Draft, followed: Followed) -> None:
    for file in followed.unread:
        draft.todo.append(f"{file} is sourced, and only a command would tell its name: write that into the script")
    if len(followed.launches) > 1:
        lines = ", ".join(str(launch.line) for launch in followed.launches)
        draft.todo.append(f"the script starts the trainer in lines {lines}; this is the first of them")
    for launch in followed.launches[:1]:
        if launch.joined:
            draft.todo.append(
                f"line {launch.line} and on: a line lacks its \\, so bash gives slime fewer flags; all are read here"
            )
