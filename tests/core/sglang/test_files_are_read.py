"""When an engine has read files: SGLang answers once its first rank has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.sglang import weights
from core.sglang.weights import update_from_disk
from tests.support.tiny_models import tiny_model


class Client:
    """Writes down what it is asked."""

    def __init__(self, model_dir: Path) -> None:
        self.model_dir, self.asked = model_dir, list[str]()

    def capabilities(self) -> Client:
        return self

    def post_checked(self, path: str, body: dict[str, Any], loads: bool = False) -> dict[str, Any]:
        del body, loads
        self.asked.append(path)
        return {"ranks": [{"checksums": {"embedding": 1, "norm": 2}}, {"checksums": {"embedding": 3, "norm": 2}}]}


def test_it_is_asked_for_something_of_all_ranks_before_files_may_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(tiny_model("llama-tied", tmp_path / "model"))
    monkeypatch.setattr(weights, "verify", lambda *_: client.asked.append("verified"))
    loaded = update_from_disk(client, client.model_dir, "step1")  # type: ignore[arg-type]
    assert loaded == {"embedding@0": "1", "norm@0": "2", "embedding@1": "3", "norm@1": "2"}
    loading = client.asked.index("/update_weights_from_disk")
    assert client.asked[loading:] == ["/update_weights_from_disk", "/weights_checker", "verified"]
