"""What `--constraint` asks of nodes. Pure.

Slurm joins the names of features with & and |, groups them with ( ) or [ ], counts nodes with `*2` and excludes with !.
Read here are the names, and whether the expression is the plain one: all nodes have all of these features. Left out:
which nodes an expression with alternatives, groups or counts takes.
"""

from __future__ import annotations

import re

_COUNT = re.compile(r"\*\d+")
_NAME = re.compile(r"(!?)\s*([^\s&|!()\[\],*]+)")
_PLAIN = re.compile(r"[^|!()\[\]*]*")


def feature_names(constraint: str) -> tuple[str, ...]:
    """Every feature that some node must have, each once, in order; not those behind a `!`."""
    return tuple(dict.fromkeys(name for excluded, name in _NAME.findall(_COUNT.sub("", constraint)) if not excluded))


def needed_features(constraint: str) -> frozenset[str]:
    """Features that each node must have; none are known of an expression with alternatives, groups or counts."""
    return frozenset(feature_names(constraint)) if _PLAIN.fullmatch(constraint) else frozenset()
