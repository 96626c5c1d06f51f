"""Three servers for all tests of this folder, started together: the start is most of the time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.engine_servers import RunningEngine, start_engine, wait_up
from tests.support.tiny_models import tiny_model

API_KEY = "-a-secret-of-this-test"  # begins with a dash, as a random key may


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RunningEngine]]:
    """qwen3 with an API key; llama with tied embeddings, and qwen3 with experts, without one."""
    folder = tmp_path_factory.mktemp("engines")
    # a CPU engine pads other widths than multiples of 32, and what is padded is not replayed
    experts = tiny_model("qwen3_moe", folder / "moe-model", moe_intermediate_size=64)
    started = {
        "qwen3": start_engine(tiny_model("qwen3", folder / "qwen3-model"), folder / "qwen3.log", API_KEY),
        "llama-tied": start_engine(tiny_model("llama-tied", folder / "llama-model"), folder / "llama-tied.log"),
        "qwen3_moe": start_engine(experts, folder / "qwen3_moe.log"),
    }
    try:
        yield {name: wait_up(engine) for name, engine in started.items()}
    finally:
        for engine in started.values():
            engine.process.kill()
            engine.process.wait(30)


@pytest.fixture(params=["qwen3", "llama-tied", "qwen3_moe"])
def engine(request: pytest.FixtureRequest, engines: dict[str, RunningEngine]) -> RunningEngine:
    """Each of them in turn."""
    return engines[request.param]


@pytest.fixture
def qwen3(engines: dict[str, RunningEngine]) -> RunningEngine:
    return engines["qwen3"]
