"""Run file and site file take and refuse the same: what each said of these, while there were two codes, differed."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.checks import check_run_file
from core.config import RunFileError, load_run_file
from hpc.site.files import Site, SiteFileError, load_site
from tests.support.good_run import RUN_FILE, write_run

TIMES = {"1:123:00": 183, "1-2:345": 1905, "90:90": 92, "1-2": 1560}


def run_says(folder: Path, key: str, value: str) -> list[str]:
    """The mistakes that a run file with the value has at the key, without line and key."""
    try:
        check_run_file(write_run(folder, RUN_FILE + f"slurm:\n  {key}: {value}\n"))
    except RunFileError as error:
        return [f"found {it.found}; wanted {it.wanted}: {it.remedy}" for it in error.mistakes]
    return []


def site_says(folder: Path, key: str, value: str) -> list[str]:
    """As `run_says`, of a site file."""
    (folder / "site.yaml").write_text(f"{key}: {value}\n")
    try:
        load_site(folder / "site.yaml")
    except SiteFileError as error:
        return [f"found {it.found}; wanted {it.wanted}: {it.remedy}" for it in error.mistakes]
    return []


@pytest.mark.parametrize(("text", "minutes"), TIMES.items())
def test_both_take_a_time_limit_that_slurm_takes(tmp_path: Path, text: str, minutes: int) -> None:
    assert run_says(tmp_path, "time", f'"{text}"') == []
    assert site_says(tmp_path, "time", text) == []
    assert load_site(tmp_path / "site.yaml").time_minutes == minutes


@pytest.mark.parametrize("text", ["1:2:3:4", "1-2-3", "1h", " 90", "00:00"])
def test_both_refuse_another_with_the_same_words(tmp_path: Path, text: str) -> None:
    found = run_says(tmp_path, "time", f"'{text}'")
    assert len(found) == 1
    assert found == site_says(tmp_path, "time", f"'{text}'")


@pytest.mark.parametrize("name", ["n017", "gpu[3-5]", "rack[1-2]n[01-16]", "gpu[3-5]-ib", "n[1-3,7].cluster"])
def test_both_take_nodes_that_slurm_takes(tmp_path: Path, name: str) -> None:
    assert run_says(tmp_path, "exclude", f"['{name}']") == []
    assert site_says(tmp_path, "nodes_exclude", f"['{name}']") == []


@pytest.mark.parametrize("name", ["n1,n2", "n 1", "n[1-2", "n[3-1]", "n[]", "[1-2]", "ñ1", "n[1-]"])
def test_both_refuse_other_nodes_with_the_same_words(tmp_path: Path, name: str) -> None:
    found = run_says(tmp_path, "exclude", f"['{name}']")
    assert len(found) == 1
    assert found == site_says(tmp_path, "nodes_exclude", f"['{name}']")


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("a: *b\n", "put a value that begins with * in quotes"),
        ("a: b: c\n", "quote a value that contains ': ', or indent the line as its neighbours"),
        ("a: 1\n---\na: 2\n", "keep one document: remove the '---' line"),
        ("a:\n\tb: 1\n", "indent with spaces, not tabs"),
        ("a: 'b\n", "look at this line and the one above it"),
        ("? [a, b]\n: 1\n", "quote the key"),
        ("a: !!python/object b\n", "remove the tag"),
    ],
    ids=["alias", "colon", "documents", "tab", "quote", "list as a key", "tag"],
)
def test_yaml_that_is_none_has_one_remedy(tmp_path: Path, text: str, remedy: str) -> None:
    for name, load in (("run.yaml", load_run_file), ("site.yaml", load_site)):
        (tmp_path / name).write_text(text)
        with pytest.raises((RunFileError, SiteFileError)) as caught:
            load(tmp_path / name)
        assert [mistake.remedy for mistake in caught.value.mistakes] == [remedy]


@pytest.mark.parametrize("null", ["", "~", "null", "Null", "NULL"])
def test_null_is_the_same_in_both(tmp_path: Path, null: str) -> None:
    (tmp_path / "site.yaml").write_text(f"account: {null}\n")
    assert load_site(tmp_path / "site.yaml").account is None
    config = load_run_file(write_run(tmp_path, RUN_FILE + f"slurm:\n  time: {null}\n"))
    assert config.slurm.time is None


@pytest.mark.parametrize("text", ["'~'", "'null'", '"NULL"'])
def test_quoted_it_is_text_in_both(tmp_path: Path, text: str) -> None:
    (tmp_path / "site.yaml").write_text(f"environment: {{A: {text}}}\n")
    config = load_run_file(write_run(tmp_path, RUN_FILE + f"slurm:\n  environment: {{A: {text}}}\n"))
    assert load_site(tmp_path / "site.yaml").environment == config.slurm.environment == {"A": text[1:-1]}


def test_a_list_or_mapping_whose_lines_are_commented_out_is_empty_at_every_depth(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("modules:\n  # - cuda\ncontainer:\n  mounts:\n    # - /a\n")
    assert load_site(tmp_path / "site.yaml") == Site()
    text = "slurm:\n  exclude:\n    # - n1\n  environment:\n    # A: b\nlogging:\n"
    slurm = load_run_file(write_run(tmp_path, RUN_FILE + text)).slurm
    assert (slurm.exclude, slurm.environment) == ((), {})
