from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from common.schema_words import default_text
from common.yaml_document import parse_document
from core.checks import check_run_file
from core.config.keys import RUN_FILE, RUN_KEYS
from core.config.reference import reference
from core.config.validate import validate

PAGE = Path(__file__).parents[3] / "docs" / "run-file.md"
ALL_KEYS = [(section, key) for section in RUN_KEYS.sections() for key in RUN_KEYS.keys_of((section,))]


def test_the_page_holds_the_reference() -> None:
    assert reference() in PAGE.read_text(encoding="utf-8"), "put the output of python -m core.config.reference there"


def test_the_pages_example_is_a_valid_run_file() -> None:
    example = PAGE.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    document, problems = parse_document(example, RUN_FILE)
    config, invalid = validate(document)
    assert problems + invalid == []
    assert config.rollout.n_samples_per_prompt == 8


def test_the_pages_example_of_messages_is_what_is_printed(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    example = page.split("```yaml\n")[1].split("```")[0]
    (tmp_path / "run.yaml").write_text(example.replace("num_rollout:", "num_rollouts:").replace("lr: 1e-6", "lr: fast"))
    with pytest.raises(ValueError) as caught:
        check_run_file(tmp_path / "run.yaml", ["checkpoint.keep=0"])
    schema_problems = [line for line in str(caught.value).splitlines()[1:] if "does not exist" not in line]
    assert page.split("```text\n")[1].split("```")[0].splitlines()[1:] == schema_problems


@pytest.mark.parametrize("path", ALL_KEYS, ids=".".join)
def test_every_key_has_a_meaning(path: tuple[str, str]) -> None:
    key = RUN_KEYS.schema_at(path)
    assert key is not None
    assert key.get("description")


@pytest.mark.parametrize("path", ALL_KEYS, ids=".".join)
def test_every_default_is_spelt_as_a_run_file_spells_it(path: tuple[str, str]) -> None:
    key = RUN_KEYS.schema_at(path)
    assert key is not None
    if default_text(key):
        assert yaml.safe_load(default_text(key).replace("e-", ".0e-")) == key["default"]
