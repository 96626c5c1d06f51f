"""docs/moving-in.md says what the importer and the hints say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from common.yaml_document import parse_document
from core.config.keys import RUN_FILE
from core.config.other_names import names_of, page_table
from core.config.validate import validate
from launchers.moving_in.draft import LOSSES
from launchers.moving_in.import_script import import_script
from launchers.moving_in.summary import summary

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "moving-in.md").read_text(encoding="utf-8")
SCRIPT = ROOT / "examples" / "slime" / "run-qwen2.5-0.5B.sh"


def test_the_example_becomes_what_the_page_shows() -> None:
    found = import_script(SCRIPT, {"MODELS_DIR": "/models"})
    assert (found.mistakes, found.draft.todo) == ([], [])
    assert f"```text\n{summary(found, SCRIPT.name)}\n```" in PAGE
    keys = re.search(r"```yaml\ntrain:\n(.*?)```", PAGE, re.S)
    assert keys is not None
    assert set(keys[1].splitlines()) <= set(found.text.splitlines())


def test_a_set_of_an_evaluation_config_becomes_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = "custom_generate_function_path: tools.search.generate"
    Path("sets.yaml").write_text(f"eval: {{datasets: {{search: {{path: /d/search.jsonl, temperature: 0.6, {own}}}}}}}")
    Path("run.sh").write_text("python3 train.py --hf-checkpoint m --eval-interval 2 --eval-config sets.yaml")
    shown = re.search(r"```yaml\neval:\n(.*?)```", PAGE, re.S)
    assert shown is not None
    assert set(shown[1].splitlines()) <= set(import_script(Path("run.sh")).text.splitlines())


@pytest.mark.parametrize("library", ["verl", "trl"])
def test_tables_of_names_are_those_of_the_hints(library: str) -> None:
    assert "\n".join(page_table(library)) in PAGE


def test_every_kind_of_loss_is_explained_and_flags_are_counted() -> None:
    assert re.findall(r"^\| (\w+) \|", PAGE[PAGE.index("| loses |") :], re.M)[1 : 1 + len(LOSSES)] == list(LOSSES)
    assert f"has {len(names_of('slime'))} flags" in PAGE


def test_hints_are_those_of_the_page() -> None:
    shown = re.findall(r"^line \d+: (\w+)\.(\w+): found an unknown key; .*$", PAGE, re.M)
    assert len(shown) == 3
    for section, key in shown:
        document, _ = parse_document(f"{section}: {{{key}: 1}}", RUN_FILE)
        _, mistakes = validate(document)
        told = next(mistake for mistake in mistakes if mistake.key == f"{section}.{key}")
        assert str(told).partition(": ")[2] in PAGE
