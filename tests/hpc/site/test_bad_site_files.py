"""Every mistake in a site file is reported in full, and documented.

`python tests/hpc/site/test_bad_site_files.py` prints what docs/site-file.md has to hold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hpc.site.files import SiteFileError, load_site

TABLE = yaml.safe_load(Path(__file__).with_name("bad_site_files.yaml").read_text(encoding="utf-8"))
PAGE = Path(__file__).parents[3] / "docs" / "site-file.md"


def documented() -> str:
    """All mistakes as the page shows them."""
    parts = []
    for case in TABLE:
        if case["text"] is None:
            continue
        says = "\n".join(line.strip() for line in case["says"].splitlines()[1:])
        parts.append(f"{case['id'].capitalize()}:\n\n```yaml\n{case['text']}```\n```text\n{says}\n```\n")
    return "\n".join(parts)


@pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in TABLE])
def test_a_mistake_is_reported_in_full(case: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    if case["text"] is not None:
        path.write_text(case["text"], encoding="utf-8")
    with pytest.raises(SiteFileError) as caught:
        load_site(path)
    assert str(caught.value).replace(str(tmp_path), "DIR").replace(str(Path.cwd()), "HERE") == case["says"].rstrip("\n")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_bytes(b"account: \xff\n")
    with pytest.raises(SiteFileError, match="found a byte that is not UTF-8 at position 9; wanted text in UTF-8"):
        load_site(tmp_path / "site.yaml")


def test_the_page_documents_every_mistake() -> None:
    assert documented() in PAGE.read_text(encoding="utf-8"), "put the output of this file there"


if __name__ == "__main__":
    print(documented(), end="")
