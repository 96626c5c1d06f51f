"""A data section: its source, its files, and its rows. Evaluation sets are checked by the same functions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from common.mistake import Mistake, Wrong, show
from common.nearest import nearest
from core.checks.function import python_function
from core.checks.reward import NEEDS_LABEL
from core.checks.rows import is_of_rows
from core.config.schema import RunConfig
from core.config.sections.data import DataConfig
from core.config.set_rewards import place_of, reward_of
from core.plugins import FORMS


class LeastRows(NamedTuple):
    """How many rows a source must have, and which batch size says so: `rollout` or `over_sampling`."""

    number: int
    set_by: str


class Comparison(NamedTuple):
    """What labels are compared by: a reward's type, and the key that says it; no type: they are what is learnt."""

    type: str
    key: str = "reward.type"


ONE_ROW = LeastRows(1, "rollout")


def training_data(config: RunConfig) -> Iterator[Mistake]:
    """The training data is there, has the keys, and fills at least one step."""
    rollout = config.rollout
    drawn = rollout.over_sampling_batch_size
    least = LeastRows(drawn or rollout.rollout_batch_size, "over_sampling" if drawn else "rollout")
    yield from data_section("data", config.data, compared_by(config), least)


def compared_by(config: RunConfig, name: str = "") -> Comparison:
    """What labels of an evaluation set are compared by; of training, where `name` is empty."""
    if is_of_rows(config):
        return Comparison("")
    return Comparison(reward_of(config, name).type, f"{place_of(config, name)}.type")


def data_section(key: str, data: DataConfig, reward: Comparison, least_rows: LeastRows = ONE_ROW) -> Iterator[Mistake]:
    """The problems of the data section at `key`. Rows are read only if nothing is wrong with the source itself.

    Args:
        reward: see `compared_by`.
    """
    source_problems = list(_source(key, data))
    yield from source_problems
    yield from _template(key, data)
    if data.label_key is None and reward.type in NEEDS_LABEL:
        wanted = f"a label_key, because {reward.key} {reward.type} compares with a label"
        yield Mistake(f"{key}.label_key", None, "null", wanted, "name the row key of the reference answer")
    if not reward.type and not data.apply_chat_template and data.label_key is None:
        wanted = "the key of the answer, as apply_chat_template is false and the rows are to be learnt"
        yield Mistake(f"{key}.label_key", None, "null", wanted, "name it")
    if not source_problems:
        yield from _rows(key, data, reward, least_rows)


def _source(key: str, data: DataConfig) -> Iterator[Mistake]:
    if data.source == "reasoning_gym":
        if data.dataset is None:
            remedy = "add dataset, e.g. dataset: basic_arithmetic"
            yield Mistake(f"{key}.dataset", None, f"nothing, with source {data.source}", "a dataset's name", remedy)
    elif data.dataset is not None:
        remedy = "remove it, or set source to reasoning_gym"
        yield Mistake(f"{key}.dataset", None, f"a dataset with source {data.source}", "a path", remedy)
    if data.options and data.source in ("jsonl", "parquet"):
        wanted, remedy = "options only with reasoning_gym or python", "remove them, or set source to one of these"
        yield Mistake(f"{key}.options", None, f"options with source {data.source}", wanted, remedy)
    if data.source == "python" and isinstance(data.path, str):
        yield from python_function(f"{key}.path", data.path)
    elif data.source == "python" and data.path is not None:
        yield Mistake(f"{key}.path", None, f"{show(data.path)} with source python", FORMS, "name one function")
    elif data.source != "reasoning_gym" and not data.path:
        wanted = FORMS if data.source == "python" else f"a {data.source} file"
        yield Mistake(f"{key}.path", None, f"nothing, with source {data.source}", wanted, "add path")
    elif data.source in ("jsonl", "parquet"):
        yield from _files(f"{key}.path", data)


def _files(key: str, data: DataConfig) -> Iterator[Mistake]:
    from core.data.files import data_files  # here as below

    try:
        data_files(data)
    except Wrong as wrong:
        yield wrong.at(key)


def _template(key: str, data: DataConfig) -> Iterator[Mistake]:
    if data.chat_template is not None and not Path(data.chat_template).is_file():
        found = f"{data.chat_template}, which does not exist"
        yield Mistake(f"{key}.chat_template", None, found, "a file with a jinja chat template", "correct the path")


def _rows(key: str, data: DataConfig, reward: Comparison, least_rows: LeastRows) -> Iterator[Mistake]:
    # here, not at the top: core.data reads sections of core.config
    from core.data import load_rows

    source = f"{key}.dataset" if data.source == "reasoning_gym" else f"{key}.path"
    try:
        rows = load_rows(data)
    except Wrong as wrong:
        yield wrong.at(source)
        return
    except Exception as error:  # a user's function may raise anything
        found = f"{type(error).__name__}: {error}"
        yield Mistake(source, None, found, "a source whose rows can be read", "correct the source")
        return
    if len(rows) < least_rows.number:
        wanted = f"at least the {least_rows.number} prompts of one step ({least_rows.set_by}_batch_size)"
        yield Mistake(key, None, f"{len(rows)} rows", wanted, f"use more data, or lower {least_rows.set_by}_batch_size")
    for name, row_key in (("prompt_key", data.prompt_key), ("label_key", data.label_key)):
        if row_key is not None:
            yield from _row_key(f"{key}.{name}", row_key, rows)
    yield from _prompts(f"{key}.prompt_key", data, rows)
    if data.label_key is not None:
        yield from _labels(f"{key}.label_key", data.label_key, reward, rows)
    elif not reward.type and data.apply_chat_template:
        yield from _answers(f"{key}.prompt_key", data, rows)


def _row_key(key: str, row_key: str, rows: list[dict[str, Any]]) -> Iterator[Mistake]:
    from core.data.keys import keys_of  # here as above

    lacking = [number for number, row in enumerate(rows, start=1) if not _has(row, row_key)]
    if lacking:
        present = list(keys_of(rows[lacking[0] - 1]))
        suggestion = _nested(row_key, present) or nearest(row_key, present)
        remedy = f"did you mean {suggestion}?" if suggestion else f"set {key} to the key you mean"
        found = f"no {row_key!r} in {len(lacking)} of {len(rows)} rows, first in row {lacking[0]}"
        yield Mistake(key, None, found, f"a key of every row; row {lacking[0]} has {', '.join(present)}", remedy)


def _nested(row_key: str, present: list[str]) -> str | None:
    """The one key that ends in the wanted one, below others: `extra_info.answer` for `answer`."""
    ending = [one for one in present if one.endswith(f".{row_key}")]
    return ending[0] if len(ending) == 1 else None


def _has(row: dict[str, Any], row_key: str) -> bool:
    from core.data.keys import value_at  # here as above

    try:
        value_at(row, row_key)
    except KeyError:
        return False
    return True


def _prompts(key: str, data: DataConfig, rows: list[dict[str, Any]]) -> Iterator[Mistake]:
    """The first row whose prompt is neither text nor, where a chat template is applied, messages."""
    from core.data.keys import value_at  # here as above
    from core.data.messages import messages_of

    for number, row in enumerate(rows, start=1):
        if not _has(row, data.prompt_key):
            continue
        prompt = value_at(row, data.prompt_key)
        try:
            if data.apply_chat_template:
                messages_of(prompt)
            elif not isinstance(prompt, str) or not prompt:
                raise Wrong(f"{show(prompt)} as the prompt", "text, as apply_chat_template is false", "correct the row")
        except Wrong as wrong:
            yield Mistake(key, None, f"{wrong.found} in row {number}", wrong.wanted, wrong.remedy)
            return


def _answers(key: str, data: DataConfig, rows: list[dict[str, Any]]) -> Iterator[Mistake]:
    """The first row of messages without a turn of the assistant, where these are what is learnt."""
    from core.data.keys import value_at  # here as above
    from core.data.messages import messages_of

    for number, row in enumerate(rows, start=1):
        try:
            roles = {message["role"] for message in messages_of(value_at(row, data.prompt_key))}
        except (KeyError, Wrong):  # told already
            return
        if "assistant" not in roles:
            found, wanted = f"no message of the assistant in row {number}", "a turn to learn in every row"
            remedy = "name the key of the answer as label_key, or leave out such rows"
            yield Mistake(key, None, found, wanted, remedy)
            return


def _labels(key: str, row_key: str, reward: Comparison, rows: list[dict[str, Any]]) -> Iterator[Mistake]:
    """Mistakes of rows without a label that the reward can compare with: it would fail for every sample of them."""
    from core.data.keys import value_at  # here as above
    from core.reward.label import WANTED, misfit

    if reward.type not in NEEDS_LABEL:
        return
    for number, row in enumerate(rows, start=1):
        found = misfit(value_at(row, row_key), reward.type) if _has(row, row_key) else None
        if found is not None:
            wanted = f"{WANTED[reward.type]}, which {reward.key} {reward.type} compares with"
            remedy = f"correct or leave out such rows, or choose another {reward.key}"
            yield Mistake(key, None, f"{found} in row {number}", wanted, remedy)
            return
