from __future__ import annotations

from pathlib import Path

from launchers.node.command_words import words


def test_options_in_their_order_and_none_without_a_value() -> None:
    assert words({"--run-dir": Path("/r n"), "--node": 0, "--ends-at": None, "--host": ""}) == [
        "--run-dir",
        "/r n",
        "--node",
        "0",
        "--host",
        "",
    ]
