"""The recorded session of docs/session.md, and the terminal that it is recorded in."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.session import COMMANDS, HOME, PAGE, WIDTHS, plain, record
from tests.support.report_runs import write_report_run
from tests.support.terminal import Screen, in_terminal
from tests.support.waiting import COMMAND_S

PARTS = re.findall(r"^## (\d+) columns\n\n```text\n(.*?)\n```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def test_a_screen_is_what_is_left_when_lines_were_drawn_over() -> None:
    screen = Screen(10)
    for text in (
        "\x1b[1mone\x1b[0m\r\n⠋ two",
        "\r\x1b[2Kthree\r\n\x1b",
        "[1A\x1b[2K123456789012\b\b34",
        "\x1b]0;title\x07",
    ):
        screen.feed(text)
    assert screen.lines == ["one", "1234567890", "34"]
    screen.feed("\x1b[1A\x1b[2D\x1b[J.\r\n")
    assert screen.lines == ["one", ".", ""]


def test_a_command_sees_a_terminal_of_this_width_and_ctrl_c(tmp_path: Path) -> None:
    program = (
        "import os, sys, time\ntry:\n    print(sys.stdout.isatty(), os.get_terminal_size().columns, flush=True)\n"
        "    time.sleep(600)\nexcept KeyboardInterrupt:\n    sys.exit(3)"
    )
    screen, code = in_terminal(
        [sys.executable, "-c", program],
        97,
        folder=tmp_path,
        env=os.environ,
        timeout_s=COMMAND_S,
        interrupt=lambda screen: len(screen.lines) > 1,
    )
    assert (screen.lines[0], code) == ("True 97", 3)
    with pytest.raises(TimeoutError, match="not over after 0 s"):
        in_terminal(["sleep", "60"], 80, folder=tmp_path, env=os.environ, timeout_s=0.1)


def test_the_page_has_every_command_at_every_width() -> None:
    assert [int(columns) for columns, _ in PARTS] == list(WIDTHS)
    for _, text in PARTS:
        assert tuple(re.findall(r"^\$ (.*)$", text, re.M)) == COMMANDS


@pytest.mark.parametrize(("columns", "text"), PARTS)
def test_the_page_is_as_wide_as_its_terminal_and_names_no_machine(columns: str, text: str) -> None:
    lines = text.splitlines()
    assert [line for line in lines if cell_len(line) > int(columns)] == []
    assert [line for line in lines if re.search(r"(?<![\w~])/(?!\d)\w+/", line)] == []
    assert HOME in text


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("command", ["ebbtide status out", "ebbtide inspect out --best 1 --worst 1"])
def test_what_looks_at_a_run_fits_its_terminal(columns: int, command: str, tmp_path: Path) -> None:
    """Recorded as the page is."""
    write_report_run(tmp_path / "out")
    shown = record(command, tmp_path, columns)
    assert shown
    assert plain(shown, tmp_path) == shown
    assert [line for line in shown.splitlines() if cell_len(line) > columns] == []
