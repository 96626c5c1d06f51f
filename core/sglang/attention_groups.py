"""Groups of an engine's ranks that compute the attention of samples of their own, each over a KV cache of its own.

SGLang calls them data-parallel attention. Whether the options are good, `core/checks/attention_groups.py` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OPTIONS = (SWITCH, SIZE, OUTPUT) = ("enable_dp_attention", "dp_size", "enable_dp_lm_head")


def attention_groups(options: Mapping[str, Any]) -> int:
    """The number of groups that a run file's options make; 1: all ranks share every sample's attention."""
    size = options.get(SIZE)
    return max(1, size) if options.get(SWITCH) and isinstance(size, int) else 1


def whole_output_layer(options: Mapping[str, Any]) -> bool:
    """Whether each of these groups has the whole output layer, too."""
    return attention_groups(options) > 1 and bool(options.get(OUTPUT))
