"""Expressions of `--constraint`, after the examples of sbatch's manual page."""

from __future__ import annotations

import pytest

from hpc.slurm.constraint import feature_names, needed_features

EXPRESSIONS: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "intel": (("intel",), {"intel"}),
    "intel&gpu": (("intel", "gpu"), {"intel", "gpu"}),
    "intel & gpu": (("intel", "gpu"), {"intel", "gpu"}),
    "intel|amd": (("intel", "amd"), set()),
    "[rack1|rack2|rack3]": (("rack1", "rack2", "rack3"), set()),
    "[rack1*2&rack2*4]": (("rack1", "rack2"), set()),
    "graphics*4": (("graphics",), set()),
    "(knl&snc4&flat)*4&haswell*1": (("knl", "snc4", "flat", "haswell"), set()),
    "a&a": (("a",), {"a"}),
    "gpu&!old": (("gpu",), set()),
    "cpu-gen:4&net=ib_hdr.2": (("cpu-gen:4", "net=ib_hdr.2"), {"cpu-gen:4", "net=ib_hdr.2"}),
    "": ((), set()),
}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_names_and_what_each_node_needs(expression: str) -> None:
    names, needed = EXPRESSIONS[expression]
    assert feature_names(expression) == names
    assert needed_features(expression) == needed
