"""The page of `ebbtide report`: what it says, what it is made of, and that no stranger's text becomes a part of it."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import subprocess
import sys
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from core.run_dir.attempt_folder import AttemptFolder
from core.run_dir.run_directory import RunDirectory
from core.trajectory import step_path, write_step
from launchers.attempts.provenance import Provenance, note_provenance
from launchers.cli import app
from launchers.report.page import report
from launchers.report.samples import MOST_BYTES
from tests.support.histories import began, ended, lines
from tests.support.report_runs import SETTINGS, events, write_report_run
from tests.support.step_samples import make_record, make_samples
from tests.support.waiting import COMMAND_S

OURS = Path(__file__).parents[3] / "launchers" / "report" / "page"
HOSTILE = (
    "<script>document.title='pwned'</script>",
    "\"><img src=x onerror=document.title='pwned'>",
    "' onmouseover='document.title=1' x='",
    "</title></style></script><svg onload=document.title='pwned'>",
    "</pre></details><iframe srcdoc='<script>top.document.title=1</script>'></iframe>",
    "{{ 7 * 7 }}{% raw %}${{<%= 7 * 7 %>",
    "javascript:document.title='pwned'",
    "]]><!--><script>document.title='pwned'</script>",
    "&lt;script&gt;&#60;b&#62;",
    "\x1b[2J\u202e\x07\ud800\x00$\\frac{$",
    "a" * 5000 + "<b>",
)


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.shown: list[str] = []
        self.inside = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        {"script": self.scripts, "style": []}.get(self.inside, self.shown).append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.shown))  # a space that does not break is one, too


def page_of(*directories: RunDirectory) -> Page:
    return Page(report(directories))


def test_a_complete_run_is_told(tmp_path: Path) -> None:
    text = page_of(write_report_run(tmp_path / "run-of-mine")).text
    for words in (
        "run-of-mine complete",
        "Complete: all 4 steps are done (one attempt, 8 min 20 s in all).",
        "accuracy of kept_out 0.10 → 0.90.",
        "50% of the last responses were cut off at rollout.max_response_tokens = 40.",
        "Evaluation: accuracy error bars: 95 % for the number of prompts",
        "Gap of engine and trainer mean |log-prob difference| per token, nats; logarithmic",
        "1 more that was logged",
        "train/own_metric",
        "Samples without a reward: 0",
        "rollout 24 s 57 %",
        "update 41.5 60.2 3.8",
        "train.lr 1e-05",
        "1 2027-01-15",
    ):
        assert words in text, f"{words!r} not in\n{text}"
    assert "could not be read" not in text


def test_it_needs_nothing_from_outside_and_runs_only_our_script(tmp_path: Path) -> None:
    html = report([write_report_run(tmp_path)])
    page = Page(html)
    loading = [(tag, name) for tag, attributes in page.tags for name in attributes if name in ("src", "data", "poster")]
    assert loading == []
    assert all(attributes.get("href", "#").startswith("#") for _, attributes in page.tags)  # type: ignore[union-attr]
    script = (OURS / "report.js").read_text()
    assert page.scripts == [script]
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes)
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'"


def test_it_is_made_without_torch(tmp_path: Path) -> None:
    write_report_run(tmp_path, 1)
    code = (
        "import sys; from pathlib import Path; from launchers.report.page import report; "
        "from core.run_dir.run_directory import RunDirectory; report([RunDirectory(Path(sys.argv[1]))]); "
        "print(sorted({'torch', 'transformers', 'sglang', 'megatron', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_S, check=True, cwd=OURS.parents[2])
    assert done.stdout.strip() == "[]"


def hostile_run(path: Path, seed: int) -> RunDirectory:
    """Strangers' texts in every place where one may write."""
    rng = random.Random(seed)

    def bad() -> str:
        return rng.choice(HOSTILE)

    settings = {**SETTINGS, bad(): bad(), "data": {bad(): [bad()], "path": bad()}}
    name = bad().replace("/", "|").replace("\0", "").encode("utf-8", "replace").decode()[:80]
    directory = write_report_run(path / name, 2, 3, stored=0)
    directory.run_file.write_text(json.dumps(settings))
    told = events(2, 3)
    for event in told:
        if event["event"] == "step":
            event["metrics"] |= {bad(): rng.random(), bad(): 1.0}
        if event["event"] == "eval":
            event["results"] = {bad(): {bad(): rng.random()}}
        if event["event"] == "phase" and rng.random() < 0.3:
            event["phase"] = bad()
    lines(directory.progress, told)
    ends = ended(1, rng.choice(["failed", bad()]), cause=bad(), failed_nodes=[bad()])
    lines(directory.ledger, [began(1, job=bad(), host=bad(), nodes=[bad(), bad()]), ends])
    packages = {"ebbtide": bad(), bad(): bad()}
    files = [{"key": bad(), "path": bad(), "problem": bad()}, {bad(): bad()}]
    made = Provenance(1.0, (bad(),), bad(), bad(), packages, bad(), bad(), bad(), (bad(),), bad(), bad(), gpus=(bad(),))
    AttemptFolder(directory.attempt(1)).provenance.write_text(json.dumps({**asdict(made), "user_files": files}))
    for step in range(2):
        samples = make_samples(2, 2, seed)
        for sample in samples:
            sample.response_text, sample.engine, sample.weight_version = bad(), bad(), bad()
            sample.prompt = replace(sample.prompt, text=bad(), label=bad())
            if rng.random() < 0.5:
                sample.reward, sample.failure = None, bad()
        write_step(step_path(directory.path, step), make_record(samples, step))
    return directory


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, ...]]:
    """Tags of a page without a single hostile text, each with the names of its attributes."""
    page = page_of(plain_run(tmp_path_factory.mktemp("plain")))
    return {(tag, *sorted(attributes)) for tag, attributes in page.tags}


@pytest.mark.parametrize("seed", range(6))
def test_no_text_of_a_stranger_becomes_markup(tmp_path: Path, plain: set[tuple[str, ...]], seed: int) -> None:
    directories = [hostile_run(tmp_path / str(number), seed + 100 * number) for number in range(1 + seed % 2)]
    html = report(directories)
    page = Page(html)
    kinds = {(tag, *sorted(attributes)) for tag, attributes in page.tags}
    assert kinds - plain <= KNOWN_ELSEWHERE
    assert page.scripts == [(OURS / "report.js").read_text()]
    assert not any(code in html for code in ("\x1b", "\x07", "\0"))
    assert "&lt;" in html
    html.encode("utf-8")


KNOWN_ELSEWHERE = {
    ("option", "value"),
    ("div", "class"),
    ("span", "class"),
    ("p", "class"),
    ("details",),
    ("summary",),
    ("ol", "class"),
    ("li",),
    ("h2",),
    ("h3",),
    ("pre", "tabindex"),
}
"""What a page may also have, of several runs and of those that went wrong: still nothing that acts."""


def plain_run(path: Path) -> RunDirectory:
    """A run of the same shape without a single hostile text."""
    directory = write_report_run(path, 2, 3, stored=2)
    lines(directory.ledger, [began(1), ended(1, "failed", cause="a cause")])
    (path / "reward.py").write_text("mine\n")
    directory.run_file.write_text(json.dumps({**SETTINGS, "reward": f"{path}/reward.py:f"}))
    note_provenance(directory, 1)
    return directory


def test_a_page_of_300_steps_with_long_texts_is_small(tmp_path: Path) -> None:
    directory = write_report_run(tmp_path, 300, stored=0)
    for step in range(0, 300, 20):
        samples = make_samples(4, 4, step)
        for sample in samples:
            sample.response_text = '<"&>' * 20_000
        write_step(step_path(tmp_path, step), make_record(samples, step))
    html = report([directory])
    assert len(html.encode()) < 3_000_000
    assert html.count("characters left out …]") > 10
    assert "No step file for steps 1-19, 21-39" in html
    assert MOST_BYTES < 1_000_000


def test_secrets_are_in_no_part_of_the_page(tmp_path: Path) -> None:
    secret = "S3CR3T-of-mine"
    sinks = [{"name": "wandb", "options": {"api_key": secret}}]
    settings = {**SETTINGS, "logging": {"sinks": sinks}, "slurm": {"environment": {"HF_TOKEN": secret}}}
    directory = write_report_run(tmp_path, 2, 3, settings, stored=0)
    lines(directory.ledger, [began(1), ended(1, "failed", cause=f"wandb refused api_key={secret}")])
    samples = make_samples(1, 2)
    samples[0].reward, samples[0].failure = None, f"HTTPError: https://me:{secret}@host"
    write_step(step_path(tmp_path, 0), make_record(samples, 0))
    html = report([directory])
    assert secret not in html
    assert html.count("(hidden)") >= 4


def test_several_runs_are_drawn_over_each_other_and_compared(tmp_path: Path) -> None:
    settings = {**SETTINGS, "train": {"global_batch_size": 16, "lr": 3e-5, "clip_grad": 0.5}}
    runs = [write_report_run(tmp_path / "one"), write_report_run(tmp_path / "two", 3, 4, settings)]
    html = report(runs)
    text = Page(html).text
    assert "2 runs" in text
    assert "accuracy of kept_out" in text
    assert "train.lr 1e-05 3e-05" in text
    assert "train.clip_grad — 0.5" in text
    assert "train.global_batch_size 16 16" not in text
    assert "var(--c0)" in html
    assert "var(--c1)" in html


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def garbage(path: Path) -> None:
    path.write_bytes(b"\xff\xfe{{[[\n\x00\n" * 3)


@pytest.mark.parametrize(
    ("name", "harm", "says"),
    [
        ("progress.jsonl", Path.unlink, "No curves: no step has been done yet."),
        ("progress.jsonl", cut, "1 of 24 lines of progress.jsonl cannot be read and are left out."),
        ("progress.jsonl", garbage, "6 of 6 lines of progress.jsonl cannot be read"),
        ("ledger.jsonl", Path.unlink, "Not started yet: the ledger has no attempt."),
        ("ledger.jsonl", garbage, "lines of ledger.jsonl cannot be read"),
        ("run.yaml", garbage, "run.yaml is no YAML that can be read; the settings are left out."),
        ("steps/step_000001.h5", cut, "The samples of step 1 cannot be read: "),
        ("steps/step_000001.h5", garbage, "The samples of step 1 cannot be read: "),
        ("steps/step_000002.h5", Path.unlink, "No step file for steps 2, of 4 that were done."),
        ("attempts/1/trainer-0.log", garbage, "No log of trainer rank 0 tells of it."),
    ],
)
def test_what_is_damaged_or_missing_is_a_sentence(tmp_path: Path, name: str, harm, says: str) -> None:  # type: ignore[no-untyped-def]
    directory = write_report_run(tmp_path)
    harm(tmp_path / name)
    text = page_of(directory).text
    assert says in text
    assert "Traceback" not in text


def test_a_directory_with_nothing_but_a_run_file(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(SETTINGS))
    text = page_of(RunDirectory(tmp_path)).text
    for words in ("not started", "No curves", "No phase has ended yet.", "No step file can be shown yet."):
        assert words in text


@pytest.mark.parametrize("seed", range(10))
def test_random_damage_never_stops_the_page(tmp_path: Path, seed: int) -> None:
    directory, rng = write_report_run(tmp_path, 2, 3, stored=1), random.Random(seed)
    for path in (directory.progress, directory.ledger, directory.run_file, step_path(tmp_path, 0)):
        content = bytearray(path.read_bytes())
        for _ in range(rng.randint(1, 12)):
            place = rng.randrange(len(content))
            content[place] = rng.choice([rng.randrange(256), *b'{}[]":,0189-eE\n'])
        path.write_bytes(content)
    assert "ebbtide report" in page_of(directory).text


def test_numbers_and_types_that_make_no_sense(tmp_path: Path) -> None:
    directory = write_report_run(tmp_path)
    told = [
        '{"event": "step", "step": 1, "time": 1e999, "metrics": {"rollout/raw_reward": 1}}',
        '{"event": "step", "step": 1, "time": 5, "metrics": {"rollout/raw_reward": 1' + "0" * 400 + "}}",
        '{"event": "step", "step": -1, "time": 5, "metrics": {}}',
        '{"event": "step", "step": 1' + "0" * 30 + ', "time": 5, "metrics": {}}',
        '{"event": "phase", "phase": 3}',
        '{"event": "eval", "step": 1, "time": 5, "results": {"kept_out": {"accuracy": NaN}, "x": 3}}',
        '{"event": "begin", "step": 0, "num_steps": 4, "eval_prompts": {"kept_out": -1e400, "b": null}}',
        "[" * 100_000,
        "3",
    ]
    with directory.progress.open("a") as file:
        file.write("\n".join(told) + "\n")
    with directory.ledger.open("a") as file:
        file.write('{"attempt": "x"}\n{"attempt": 2, "began": 1e300}\n{"attempt": 2, "nodes": 5}\n{"attempt": 2}\n')
    assert "lost" in page_of(directory).text


def test_the_command_writes_the_file_and_says_where(tmp_path: Path) -> None:
    write_report_run(tmp_path / "a")
    done = CliRunner().invoke(app, ["report", str(tmp_path / "a"), str(tmp_path / "a")])
    assert done.exit_code == 0, done.output
    assert f"{tmp_path / 'a' / 'report.html'} (" in done.output
    assert Page((tmp_path / "a" / "report.html").read_text()).text.startswith(" a ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "found no run.yaml in it; wanted a run directory"),
        (["a", "-o", "."], "wanted a file: write report.html"),
    ],
)
def test_mistakes_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_report_run(tmp_path / "a", 1)
    done = CliRunner().invoke(app, ["report", *arguments])
    assert done.exit_code == 2
    assert says in done.output
