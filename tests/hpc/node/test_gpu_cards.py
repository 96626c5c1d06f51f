from __future__ import annotations

import pytest

from common.memory_size import gpu_memory_bytes
from common.mistake import Wrong
from common.units import GIB
from hpc.node.gpu_cards import CARDS, capability_of, card_of


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("h100", "H100 80 GB"),
        ("H200", "H200 141 GB"),
        ("nvidia_h100_80gb_hbm3", "H100 80 GB"),
        ("a100-sxm4-80gb", "A100 80 GB"),
        ("a100_40g", "A100 40 GB"),
        ("tesla_v100-sxm2-32gb", "V100 32 GB"),
        ("l40s", "L40S 48 GB"),
    ],
)
def test_clusters_spell_cards_in_many_ways(name: str, card: str) -> None:
    assert str(card_of(name)) == card


@pytest.mark.parametrize("name", ["a100", "v100", "gpu", "1g.10gb", "a100_1g.5gb", "h100-mig", "h100-64gb", "xh100"])
def test_what_a_name_does_not_tell_is_not_guessed(name: str) -> None:
    assert card_of(name) is None


@pytest.mark.parametrize(
    ("name", "capability"),
    [("v100", 7.0), ("tesla_t4", 7.5), ("a100", 8.0), ("nvidia_h100_80gb_hbm3", 9.0), ("x", None)],
)
def test_a_name_without_a_size_tells_the_compute_capability(name: str, capability: float | None) -> None:
    assert capability_of(name) == capability


def test_a_program_never_finds_more_than_is_sold() -> None:
    assert [card for card in CARDS if not 0.9 * card.sold_gb * 10**9 < card.total_bytes < card.sold_gb * GIB] == []


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("80GiB", 80 * GIB),
        ("79.1 GiB", int(79.1 * GIB)),
        ("80GB", 80 * 10**9),
        ("81559MiB", 81559 * 2**20),
        ("80g", 80 * GIB),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert gpu_memory_bytes(text) == size


@pytest.mark.parametrize("text", ["80", "GiB", "80 TiB", "-1GiB", "0GiB", "80GiB each", ""])
def test_no_sizes(text: str) -> None:
    with pytest.raises(Wrong, match="wanted a size such as 80GiB"):
        gpu_memory_bytes(text)
