"""The reward behind an address: a server of this test answers, fails, hangs and returns nonsense."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.checks import check_run_file
from core.config.sections.reward import RewardConfig
from core.plugins import load_function
from core.reward import RewardInput, RewardPool, Score, http
from core.reward.address import shown_address
from tests.support.good_run import write_run

PAGE = Path(__file__).parents[3] / "docs" / "rewards-and-data.md"
SECTION = PAGE.read_text(encoding="utf-8").partition("\n## A reward behind an address\n")[2].partition("\n## ")[0]
LIMIT_S = 20.0


class Judge(ThreadingHTTPServer):
    """Answers requests by turns with what is in `script`: a status and a text; a text alone has status 200.

    Attributes:
        asked: body and headers of each request.
        hangs: requests wait for it, where the script says None.
    """

    daemon_threads = True

    def __init__(self, *script: Any) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = list(script)
        self.asked: list[tuple[dict[str, Any], dict[str, str]]] = []
        self.hangs = threading.Event()

    @property
    def url(self) -> str:
        return f"http://user:hunter2@127.0.0.1:{self.server_address[1]}/score?key=hunter3"


class Handler(BaseHTTPRequestHandler):
    server: Judge

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((body, dict(self.headers)))
        said = self.server.script.pop(0) if len(self.server.script) > 1 else self.server.script[0]
        if said is None:
            self.server.hangs.wait(LIMIT_S)
            return
        status, text = said if isinstance(said, tuple) else (200, said)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        if isinstance(server, Judge):
            server.hangs.set()
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_WAIT_S", 0.001)


def scored(url: str, sample: RewardInput, timeout_s: float = LIMIT_S, **options: Any) -> Score:
    """What a scoring process makes of it, in this process."""
    import asyncio

    from core.reward.scorers import build_scorer
    from core.reward.worker import score_once

    config = RewardConfig(type="http", timeout_s=timeout_s, options={"url": url, **options})
    with asyncio.Runner() as runner:
        return score_once(build_scorer(config), sample, runner)


SAMPLE = RewardInput("2 + 2 =", " 4", label="4", metadata={"level": 1}, step=3, evaluation="easy")


def test_the_address_is_told_all_and_its_number_is_the_reward() -> None:
    judge = Judge("0.25")
    with serving(judge):
        assert scored(judge.url, SAMPLE, headers={"X-Project": "sums"}) == Score(0.25)
    ((body, headers),) = judge.asked
    assert (body["prompt"], body["response"], body["label"], body["metadata"]) == ("2 + 2 =", " 4", "4", {"level": 1})
    assert (body["step"], body["evaluation"], body["truncated"]) == (3, "easy", False)
    assert (headers["X-Project"], headers["Content-Type"]) == ("sums", "application/json")


def test_it_is_asked_again_where_what_is_wrong_may_pass() -> None:
    judge = Judge((500, "oh"), (429, "busy"), (503, ""), "1")
    with serving(judge):
        assert scored(judge.url, SAMPLE) == Score(1.0)
    assert len(judge.asked) == 4


def test_a_try_that_hangs_is_given_up_for_another() -> None:
    judge = Judge(None, "1")
    with serving(judge):
        assert scored(judge.url, SAMPLE, try_timeout_s=0.3) == Score(1.0)


@pytest.mark.parametrize(
    ("said", "options", "failure", "tries"),
    [
        ((500, "out of memory"), {"retries": 2}, r"from ADDRESS in 3 tries: status 500 \('out of memory'\);", 3),
        ((500, "sk-" + "a" * 30), {"retries": 0}, r"in 1 try: status 500 \('\(hidden\)'\);", 1),
        ((404, "no such page"), {}, r"status 404 from ADDRESS \('no such page'\); wanted status 200", 1),
        ((302, ""), {}, r"status 302 from ADDRESS", 1),
        ("<html>", {}, r"an answer from ADDRESS that is no JSON \('<html>'\); wanted a number, or a mapping", 1),
        ('"0.5"', {}, r"the reward is a str \('0.5'\); wanted a number", 1),
        ("NaN", {}, r"the reward is nan; wanted a finite number", 1),
        ("1" * (http.MOST_BYTES + 1), {}, r"an answer from ADDRESS of more than 1048576 bytes", 1),
    ],
    ids=["500", "a secret in an answer", "404", "elsewhere", "no JSON", "text", "no finite number", "endless"],
)  # fmt: skip
def test_what_is_said_of_an_address_that_gives_none(
    said: Any, options: dict[str, Any], failure: str, tries: int
) -> None:
    judge = Judge(said)
    with serving(judge):
        score = scored(judge.url, SAMPLE, **options)
    assert score.value is None
    assert re.search(failure.replace("ADDRESS", re.escape(shown_address(judge.url))), str(score.failure))
    assert "hunter" not in str(score.failure)
    assert len(judge.asked) == tries


def test_an_address_that_nobody_answers_at() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        score = scored(f"http://127.0.0.1:{taken.getsockname()[1]}/", SAMPLE, retries=1)
    assert "in 2 tries: ConnectError: " in str(score.failure)


def test_the_last_word_is_its_own_where_the_time_is_over() -> None:
    """In a scoring process, which would be killed at the limit."""
    judge = Judge(None)
    config = RewardConfig(type="http", timeout_s=5.0, options={"url": judge.url})
    with serving(judge), RewardPool(config) as pool:
        begun = time.monotonic()
        score = pool.submit(SAMPLE).result(60)
        assert time.monotonic() - begun < LIMIT_S
    assert re.search(r"within 4 s, in 1 try: no answer yet; .*: see to its server, or raise", str(score.failure))


def test_kinds_that_json_has_not() -> None:
    sample = RewardInput("", "", label=(Decimal("1.5"), {date(2026, 1, 2)}), metadata={"path": Path("/a")})
    body = json.loads(http.dump(sample))
    assert (body["label"], body["metadata"]) == ([1.5, ["2026-01-02"]], {"path": "/a"})
    for label in (b"x", float("nan")):
        with pytest.raises(ValueError, match="found a row that cannot be sent as JSON"):
            http.dump(RewardInput("", "", label=label))


def test_a_token_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Judge("1")
    monkeypatch.setenv("JUDGE_TOKEN", "hush")
    with serving(judge):
        assert scored(judge.url.replace("user:hunter2@", ""), SAMPLE, token_variable="JUDGE_TOKEN") == Score(1.0)
    assert judge.asked[0][1]["Authorization"] == "Bearer hush"
    monkeypatch.delenv("JUDGE_TOKEN")
    with pytest.raises(ValueError, match="found nothing in the variable JUDGE_TOKEN; wanted the token"):
        scored(judge.url, SAMPLE, token_variable="JUDGE_TOKEN")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("{}", "found no url; wanted all that http needs: add url"),
        ("{url: 'judge:8000'}", "found the url 'judge:8000'; wanted http://HOST:PORT/PATH or https://…"),
        ("{url: 8000}", "found the url 8000; wanted http://HOST:PORT/PATH or https://…"),
        ("{url: 'http://a:b/'}", "found the url 'http://a:b/'; wanted http://HOST:PORT/PATH or https://…"),
        ("{url: 'http://u:p@/x'}", "found the url 'http://(hidden)@/x'"),
        ("{url: 'http://judge', retry: 1}", "found the option retry; wanted an option of http: url, "),
    ],
)
@pytest.mark.parametrize("place", ["reward", "eval.sets.easy.reward"])
def test_what_the_login_node_says_of_options(options: str, said: str, place: str, tmp_path: Path) -> None:
    write_run(tmp_path)
    path = tmp_path / "rows.jsonl"
    settings = [f"eval.sets.easy.path={path}", "eval.interval=1"] if place != "reward" else []
    with pytest.raises(ValueError, match=re.escape(f"{place}.options: {said}")):
        check_run_file(tmp_path / "run.yaml", [*settings, f"{place}={{type: http, options: {options}}}"])


def test_the_pages_judge_answers_the_pages_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    (tmp_path / "judge.py").write_text(block)
    handler: Any = load_function(f"{tmp_path}/judge.py:Judge", "the page")
    monkeypatch.setattr(handler, "log_message", lambda *_: None)
    (section,) = re.findall(r"```yaml\n(.*?)```", SECTION, re.DOTALL)
    options = yaml.safe_load(section)["reward"]["options"]
    monkeypatch.setenv(options["token_variable"], "hush")
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    with serving(server):
        url = f"http://127.0.0.1:{server.server_address[1]}/score"
        assert scored(**{**options, "url": url}, sample=SAMPLE) == Score(1.0)
