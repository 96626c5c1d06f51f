"""`ebbtide eval`: evaluate a model without training it; engines only."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import yaml

from common.files import append_line
from core.checks import ModelFiles
from core.config import RunFileError, dump_run_file, load_run_file
from core.config.schema import RunConfig
from core.config.sections.data import DataConfig
from core.doors import ROWS
from core.run_dir.progress import ProgressReader
from core.run_dir.run_directory import RunDirectory
from launchers.commands.foreground import current_allocation, load, run_to_end
from launchers.commands.run import Local, begin, site_that_fits
from launchers.commands.terminal import NewRunDir, Overrides, console, fail, note, say
from launchers.commands.trial import call_reward
from launchers.transfer.trained_model import TrainedModel, trained_model

EXAMPLE = "ebbtide eval runs/NAME --step 8 --data kept_out.jsonl --set eval.n_samples_per_prompt=4"
RUN_SUFFIXES = (".yaml", ".yml")
NOTHING_TRAINED = ("placement.trainers=none", "placement.schedule=evaluate", "checkpoint.save_hf=off")
# keys of `data` with which a file of `--data` is read
OF_PROMPTS = (
    *("prompt_key", "label_key", "apply_chat_template", "system_prompt", "chat_template", "chat_template_options"),
    "max_prompt_tokens",
)


@dataclass(frozen=True)
class Subject:
    """Whose model is evaluated.

    Attributes:
        run: the run directory; None: a run file or a model.
        folder: that paths of `--set` are relative to; None: the run file's.
    """

    run_file: Path
    run: RunDirectory | None = None
    folder: Path | None = None


def command(
    what: Annotated[str, typer.Argument(metavar="RUN_FILE|RUN_DIR|MODEL", help="Whose model is evaluated.")],
    step: Annotated[
        int | None, typer.Option(help="RUN_DIR: the model after this number of steps; the newest if left out.")
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Evaluate on this file, in place of eval.sets; read with the keys of data."),
    ] = None,
    overrides: Overrides = None,
    run_dir: NewRunDir = None,
    local: Local = False,
) -> None:
    """Evaluate a model on the sets of its run file, or on files, without training it.

    Starts engines only, scores with the run's reward, and shows what an evaluation in a run shows. Samples and rates
    go to a run directory of their own: `ebbtide inspect DIR --eval SET`.
    """
    with _subject(what, data or []) as subject:
        _evaluate(subject, step, data or [], overrides or [], run_dir, local)


def _evaluate(
    subject: Subject, step: int | None, data: Sequence[Path], overrides: list[str], wanted: Path | None, local: bool
) -> None:
    allocation, files = current_allocation(local), ModelFiles()
    before = _loaded(subject, overrides)
    model = _model(subject, before, step)
    changes = [*overrides, *NOTHING_TRAINED, f"placement.schedule_options={json.dumps({'step': model.step})}"]
    if data:
        changes.append(f"eval.sets={json.dumps(_sets(data, before.data))}")
    if subject.run is not None and model.path is not None:
        changes.append(f"model.path={json.dumps(model.path)}")
    config = load(subject.run_file, changes, allocation, files, subject.folder)
    config = config.model_copy(update={"name": f"{config.name}-eval"})
    site = site_that_fits(config, allocation, files)
    call_reward(config)
    directory = begin(config, wanted, allocation, site)
    if model.path is None:
        config = _with_exported(config, subject, model.step, directory)
    run_to_end(directory, allocation)
    _show(directory, config, model.step)


@contextmanager
def _subject(what: str, data: Sequence[Path]) -> Iterator[Subject]:
    """What the argument names; of a model a run file is made, for as long as it is needed."""
    path = Path(what).expanduser()
    run = RunDirectory(path.resolve())
    if run.run_file.exists():
        yield Subject(run.run_file, run)
    elif path.suffix in RUN_SUFFIXES:
        yield Subject(path)
    else:
        with tempfile.TemporaryDirectory() as drafts:
            draft = Path(drafts) / "evaluation.yaml"
            draft.write_text(yaml.safe_dump(_draft(what, data)), encoding="utf-8")
            yield Subject(draft, folder=Path.cwd())


def _draft(model: str, data: Sequence[Path]) -> dict[str, Any]:
    """What a run file has to say, for a model alone; nothing of it but the model and the data is used."""
    return {
        "name": Path(model).name.partition(":")[2] or Path(model).name,
        "model": {"path": model},
        "data": {"path": [str(one.absolute()) for one in data] or None},
        "rollout": {"num_rollout": 1, "rollout_batch_size": 1},
        "train": {"global_batch_size": 1},
    }


def _loaded(subject: Subject, overrides: list[str]) -> RunConfig:
    try:
        config = load_run_file(subject.run_file, overrides, subject.folder)
    except RunFileError as error:
        fail(str(error))
    if config.rollout.generate == ROWS:
        _refuse_rows(subject)
    return config


def _refuse_rows(subject: Subject) -> NoReturn:
    model = f"{subject.run.path}/hf" if subject.run else "MODEL"
    fail(
        f"{subject.run_file}: found rollout.generate rows, which has no reward and no evaluation by engines; wanted a "
        f"run that samples: evaluate the model by itself: ebbtide eval {model} --data FILE --set reward.type=math"
    )


def _model(subject: Subject, config: RunConfig, step: int | None) -> TrainedModel:
    if subject.run is not None:
        return trained_model(subject.run, config, step)
    if step is not None:
        named = subject.run_file if subject.folder is None else config.model.path
        found = f"found --step {step} without a run directory; wanted one, as it has models of steps"
        fail(f"{named}: {found}: `ebbtide status` lists those in runs/")
    return TrainedModel(0, config.model.path)


def _sets(paths: Sequence[Path], data: DataConfig) -> dict[str, Any]:
    """Each file as an evaluation set, under the name of the file."""
    keys = {key: getattr(data, key) for key in OF_PROMPTS}
    sets = {}
    for path in paths:
        if path.stem in sets:
            fail(f"--data: found two files named {path.stem}; wanted each name once: say them as eval.sets.NAME.path")
        source = "parquet" if path.suffix == ".parquet" else "jsonl"
        sets[path.stem] = {**keys, "source": source, "path": str(path.absolute())}
    return sets


def _with_exported(config: RunConfig, subject: Subject, step: int, directory: RunDirectory) -> RunConfig:
    """The run file with the model of a checkpoint, which is written for it."""
    from launchers.transfer.export import export

    assert subject.run is not None
    export(subject.run, step, directory.model, None, verify=False, told=note)
    model = config.model.model_copy(update={"path": str(directory.model)})
    config = config.model_copy(update={"model": model})
    dump_run_file(config, directory.run_file)
    return config


def _show(directory: RunDirectory, config: RunConfig, step: int) -> None:
    """The table of the sets, the line of JSON, and what to type next."""
    from launchers.show.display import summary

    events = list(ProgressReader(directory.progress).new_events())
    results = [event["results"] for event in events if event["event"] == "eval"][-1]
    append_line(directory.evaluation, json.dumps({"model": config.model.path, "step": step, "results": results}))
    console.print(summary(events))
    one = next(iter(results))
    say(f"samples:   {directory.steps}/   (ebbtide inspect {directory.path} --eval {one})")
    say(f"rates:     {directory.evaluation}")
