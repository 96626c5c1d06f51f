"""Dialogues: tools and environments are there, and the chat template can write what others say."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from common.mistake import Mistake, Wrong
from core.checks.tool_schema import tool_schema, tool_schemas
from core.config.paths import PACKAGE_PREFIX
from core.config.schema import RunConfig
from core.config.sections.data import DataConfig
from core.config.sections.rollout import RolloutConfig
from core.config.set_generation import generation_of
from core.config.set_rewards import places
from core.doors import GENERATE, ROWS

if TYPE_CHECKING:  # both are dear to import
    from core.data import Rendering
    from core.pretrained.tokenizer import Tokenizer

DIALOGUE = "dialogue"
ONLY_IN_DIALOGUES = ("environment_options", "tool_format", "max_turns", "call_timeout_s", "rewritten_past")
TOOLS_KEY = "rollout.tools"


def who_speaks(config: RunConfig) -> Iterator[Mistake]:
    """Tools and an environment belong to a dialogue, and a dialogue needs one of them."""
    rollout = config.rollout
    present = [name for name in ("environment", "tools") if getattr(rollout, name)]
    if present and rollout.generate != DIALOGUE:
        found = f"{rollout.generate} with {' and '.join(f'rollout.{name}' for name in present)}"
        wanted = f"{DIALOGUE}, which drives them"
        yield Mistake(GENERATE.key, None, found, wanted, "remove generate, or call them in your own function")
    elif rollout.generate == DIALOGUE and not present:
        remedy = "add rollout.tools or rollout.environment, or remove generate"
        yield Mistake(GENERATE.key, None, f"{DIALOGUE} without tools and environment", "one of them", remedy)
    for name in ONLY_IN_DIALOGUES:
        if rollout.generate == ROWS and name == "rewritten_past":  # conversations of rows have a past, too
            continue
        needed = {"environment_options": "environment", "tool_format": "tools"}.get(name)
        used = needed in present if needed else bool(present)
        if (
            getattr(rollout, name) != RolloutConfig.model_fields[name].get_default(call_default_factory=True)
            and not used
        ):
            wanted = f"{name} only with rollout.{needed or 'tools or rollout.environment'}"
            yield Mistake(f"rollout.{name}", None, f"{getattr(rollout, name)!r} without it", wanted, "remove it")


def tools(config: RunConfig) -> Iterator[Mistake]:
    """Each tool is a plain, typed function with a name of its own."""
    count = 0
    for index, path in enumerate(config.rollout.tools):
        try:
            tool_schema(path)
        except Wrong as wrong:
            count += 1
            yield wrong.at(f"{TOOLS_KEY}.{index}")
    if not count:
        try:
            tool_schemas(config.rollout.tools)
        except Wrong as wrong:
            yield wrong.at(TOOLS_KEY)


def prompts_are_messages(config: RunConfig) -> Iterator[Mistake]:
    """What others say in a dialogue is written by the chat template, as the prompt is."""
    for name, section in prompt_sections(config):
        if generation_of(config, name).generate == DIALOGUE and not section.apply_chat_template:
            key = f"{_key(name)}.apply_chat_template"
            wanted = "true, as the chat template writes what is said in a dialogue"
            yield Mistake(
                key, None, "false with a dialogue", wanted, "remove it, or generate by a function of your own"
            )


def reward_of_steps(config: RunConfig) -> Iterator[Mistake]:
    """Only an environment gives rewards for steps."""
    for place, reward in places(config):
        if reward.type == "environment" and config.rollout.environment is None:
            found, remedy = "environment without rollout.environment", f"add one, or choose another {place}.type"
            yield Mistake(f"{place}.type", None, found, "one that gives rewards", remedy)


def templates(config: RunConfig) -> Iterator[Mistake]:
    """Each section's chat template writes one turn after the other, if it can be read here."""
    path = config.model.path
    readable = not path.startswith(PACKAGE_PREFIX) and (Path(path) / "tokenizer.json").is_file()
    if config.rollout.generate != DIALOGUE or not readable or list(tools(config)):
        return
    from core.pretrained.tokenizer import load_tokenizer

    try:
        tokenizer = load_tokenizer(path)
    except Exception:  # reported when the run loads it; not every login node can
        return
    for name, section in prompt_sections(config):
        rollout = generation_of(config, name)
        if section.apply_chat_template and not (section.chat_template and not Path(section.chat_template).is_file()):
            try:
                refuse_template(rollout, rendering(rollout, section), tokenizer)
            except Wrong as wrong:
                key = "rollout.rewritten_past" if "earlier turn" in wrong.found else f"{_key(name)}.chat_template"
                yield wrong.at(key)
            except ValueError as error:
                wanted, remedy = "one that writes a dialogue", "give another template"
                yield Mistake(f"{_key(name)}.chat_template", None, str(error), wanted, remedy)


def prompt_sections(config: RunConfig) -> Iterator[tuple[str, DataConfig]]:
    """All sections with prompts, by the name of the evaluation set; empty: training."""
    yield "", config.data
    yield from config.eval.sets.items()


def rendering(rollout: RolloutConfig, section: DataConfig) -> Rendering:
    """How a section's messages become text; in a dialogue with its tools, and open for what an environment says."""
    from core.data import rendering_of

    return rendering_of(section, tool_schemas(rollout.tools), generation_prompt=rollout.environment is None)


def refuse_template(rollout: RolloutConfig, how: Rendering, tokenizer: Tokenizer) -> None:
    """Refuse a chat template that does not do for a dialogue.

    Raises:
        Wrong: it leaves out what others say, or writes earlier turns anew and the run file does not say what then.
    """
    if rollout.generate != DIALOGUE:
        return
    from core.data import refuse_untold_tools
    from core.pretrained.turns import ASKED, refuse_closed_prompt, refuse_silence, rewritten

    render = partial(_render, tokenizer, how)
    roles = [*(["tool"] if rollout.tools else []), *(["user"] if rollout.environment else [])]
    for role in roles:
        refuse_silence(render, role)
    refuse_untold_tools(how.tools, render([ASKED]))
    if not how.generation_prompt:
        refuse_closed_prompt(render)
    for role in roles:
        changed = None if rollout.rewritten_past != "refuse" else rewritten(render, role)
        if changed is not None:
            found = f"a chat template that writes an earlier turn anew: {changed[0]!r} becomes {changed[1]!r}"
            wanted = "one that leaves the model's turns as they were said, or to be told what then"
            remedy = (
                "set rollout.rewritten_past to keep (train on what was said, as it was said) or to split (each turn is "
                "a sample of its own, with the past that the template writes)"
            )
            raise Wrong(found, wanted, remedy)


def _render(
    tokenizer: Tokenizer, how: Rendering, messages: list[dict[str, str]], generation_prompt: bool = True
) -> str:
    return how.text(tokenizer, messages, generation_prompt)


def _key(name: str) -> str:
    return f"eval.sets.{name}" if name else "data"
