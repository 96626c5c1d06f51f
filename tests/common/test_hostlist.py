from __future__ import annotations

import pytest

from common.hostlist import HostlistError, expand


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("n1", ["n1"]),
        ("n[1-3]", ["n1", "n2", "n3"]),
        ("n[1-3,7]", ["n1", "n2", "n3", "n7"]),
        ("gpu[008-010]", ["gpu008", "gpu009", "gpu010"]),
        ("n[9-11]", ["n9", "n10", "n11"]),
        ("n[3-3]", ["n3"]),
        ("a, n[1-2] ", ["a", "n1", "n2"]),
        ("a,b[1,3],c-d[2-3].x", ["a", "b1", "b3", "c-d2.x", "c-d3.x"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        ("n3,n[1-2]", ["n3", "n1", "n2"]),
        ("", []),
    ],
)
def test_expand(text: str, hosts: list[str]) -> None:
    assert list(expand(text)) == hosts


@pytest.mark.parametrize(
    "text", ["n[1-3", "n1-3]", "n[[1]]", "n[1[2]3]", "n]1[", "n[]", "n[a-b]", "n[3-1]", "n[1,]", "n[1-]"]
)
def test_what_is_no_host_list_is_refused(text: str) -> None:
    with pytest.raises(HostlistError, match="host list"):
        expand(text)
