"""Pages against the results they are about."""

from __future__ import annotations

import json
from pathlib import Path

from bench.curves import page_table

ROOT = Path(__file__).parents[2]


def test_the_table_of_the_trainers_speed_is_the_result() -> None:
    page = (ROOT / "docs" / "performance.md").read_text().partition("\n### Long samples\n")[0]
    measured = json.loads((ROOT / "bench" / "results" / "mfu.json").read_text())["mfu"]
    ends = [f"| {one['tokens']:,} | " for one in measured]
    rates = [f" | {round(one['tokens_per_s'], -2):,.0f} | {one['mfu']:.3f} |" for one in measured]
    table = [line for line in page.splitlines() if line.startswith("|") and any(end in line for end in ends)]
    assert [rate for rate, line in zip(rates, table, strict=True) if not line.endswith(rate)] == []


def test_the_table_of_experts_is_the_result() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    measured = json.loads((ROOT / "bench" / "results" / "moe.json").read_text())["model"]
    assert len(measured) == 4
    for one in measured:
        figures = f"{round(one['tokens_per_s'], -2):,.0f} | {one['mfu']:.3f} | {one['peak_gib']:.1f} GiB |"
        assert f"| {one['tokens']:,} | {one['experts']} | {figures}" in page


def test_the_rewards_of_adapters_are_the_curve() -> None:
    page = (ROOT / "docs" / "lora.md").read_text()
    curves = json.loads((ROOT / "bench" / "results" / "learning.json").read_text())["curves"]
    (curve,) = [one for one in curves if one["variant"].startswith("adapters of rank 16")]
    assert "Reward by step: " + " ".join(f"{reward:.2f}" for reward in curve["reward"]) + ".\n" in page
    for name, words in (
        ("trained", "trained on {:.2f} are right at first and {:.2f}"),
        ("kept_out", "others {:.2f} and {:.2f}"),
    ):
        assert words.format(*(right for _, right in curve["accuracy"][name])) in page


def test_the_table_of_the_calculator_is_the_result() -> None:
    page = (ROOT / "docs" / "rollouts.md").read_text()
    recorded = json.loads((ROOT / "bench" / "results" / "learning.json").read_text())["curves"]
    curves = [curve for curve in recorded if curve["task"] == "calculator"]
    assert curves
    assert [curve["seed"] for curve in curves if page_table(curve, "others") not in page] == []
    assert all(curve["commit"] and curve["versions"]["sglang"] and curve["machine"] for curve in curves)


def test_the_table_of_blocks_is_the_result() -> None:
    """Rows of one shape follow each other, its name in the first."""
    page = (ROOT / "bench" / "README.md").read_text()
    lines = json.loads((ROOT / "bench" / "results" / "decode_blocks.json").read_text())["lines"]
    measured = {(one["shape"], f"{one['samples']}", f"{one['tokens']:,}"): one for one in lines}
    table = page.partition("| shape | samples | tokens of each |")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(table) == 9
    shape = ""
    for line in table:
        named, samples, tokens, *figures = (cell.strip() for cell in line.strip("|").split("|"))
        shape = named.lower() or shape
        one = measured[shape, samples, tokens]
        for told, key in zip(figures, ("sglang_us", "runs_us", "limit_us"), strict=True):
            value = float(told.replace(",", ""))
            assert abs(value - one[key]) <= (0.05001 if "." in told else 0.5001), (line, key, one[key])
