"""Site files: found, read as they look, written back; what follows from their values."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hpc.site.files import Container, CpuNodes, Site, SiteFileError, dump_site, find_site_file, load_site
from hpc.site.keys import SITE_KEYS
from hpc.site.reference import reference
from hpc.site.schema import Section

PAGE = Path(__file__).parents[3] / "docs" / "site-file.md"
FULL = Site(
    partition="gpu",
    account="007",
    cpu_nodes=CpuNodes(partition="cpu"),
    time="24:00:00",
    max_time="2-00",
    gpus_per_node=8,
    nodes_exclude=("n[1-3,7]", "rack1-[01-04]-gpu"),
    modules=("cuda/13",),
    setup=("echo 'a: b' # c", "if true; then\n  echo two lines\nfi"),
    environment={"NO_PROXY": "no", "EMPTY": "", "TILDE": "~", "N": "08"},
    port_range="21000-22000",
    heterogeneous=False,
    scratch=Path("/scratch/a b"),
    container=Container(runtime="apptainer", image="/i.sif", mounts=("/a:/b:ro",), environment={"A": "1,2"}),
    sbatch={"reservation": "night", "oversubscribe": ""},
)


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "site.yaml").write_text(text, encoding="utf-8")
    return tmp_path / "site.yaml"


@pytest.mark.parametrize("site", [FULL, Site()], ids=["full", "defaults"])
def test_what_is_written_reads_back_the_same(tmp_path: Path, site: Site) -> None:
    dump_site(site, tmp_path / "site.yaml")
    assert load_site(tmp_path / "site.yaml") == site


def test_values_are_what_they_look_like(tmp_path: Path) -> None:
    site = load_site(write(tmp_path, "account: 007\ntime: 24:00:00\nenvironment: {A: no, B: 1e3}\nqos: ~\n"))
    assert (site.account, site.time_minutes, site.qos) == ("007", 1440, None)
    assert site.environment["A"] == "no"
    assert site.environment["B"] == "1e3"


@pytest.mark.parametrize("word", ["true", "yes", "on", "True"])
def test_switches(tmp_path: Path, word: str) -> None:
    assert load_site(write(tmp_path, f"requeue: {word}\nheterogeneous: no\n")) == Site(heterogeneous=False)


def test_a_section_with_all_its_lines_commented_out_is_the_default(tmp_path: Path) -> None:
    text = "container:\n  # runtime: pyxis\nmodules:\nenvironment:\nsbatch:\nsetup:\nnodes_exclude:\nport_range:\n"
    with pytest.raises(SiteFileError, match="1 mistake"):
        load_site(write(tmp_path, text))
    assert load_site(write(tmp_path, text.replace("port_range:\n", ""))) == Site()


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert load_site(write(tmp_path, "# nothing yet\n")) == Site()


def test_where_the_site_file_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("EBBTIDE_SITE", raising=False)
    assert find_site_file() is None
    assert load_site() == Site()
    config = tmp_path / "home" / ".config" / "ebbtide"
    config.mkdir(parents=True)
    (config / "site.yaml").write_text("account: home\n")
    assert load_site().account == "home"
    write(tmp_path, "account: here\n")
    assert load_site().account == "here"
    monkeypatch.setenv("EBBTIDE_SITE", str(tmp_path / "gone.yaml"))
    with pytest.raises(SiteFileError, match="no such file"):
        load_site()


def test_ports_and_interpreter() -> None:
    assert (FULL.ports[0], FULL.ports[-1]) == (21000, 22000)
    assert Site().interpreter == sys.executable
    assert FULL.interpreter == "python3"
    assert Site(python="/opt/python").interpreter == "/opt/python"


def test_the_page_holds_the_reference() -> None:
    assert reference() in PAGE.read_text(encoding="utf-8"), "put the output of python -m hpc.site.reference there"


def test_the_pages_example_is_a_valid_site_file(tmp_path: Path) -> None:
    example = PAGE.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    assert load_site(write(tmp_path, example)).gpus_per_node == 8


@pytest.mark.parametrize(("section", "path"), [(Site, ()), (CpuNodes, ("cpu_nodes",)), (Container, ("container",))])
def test_every_key_has_a_meaning(section: type[Section], path: tuple[str, ...]) -> None:
    assert list(section.model_fields) == SITE_KEYS.keys_of(path)
    assert all(field.description for field in section.model_fields.values())
