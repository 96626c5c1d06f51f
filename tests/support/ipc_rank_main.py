"""A trainer rank of a node of two, which serve engines together; the engines are doubles. See test_weight_ipc.py.

Argument: a folder. Writes down what came of each case, as this rank saw it. Nodes do the same at the same time.
"""

from __future__ import annotations

import base64
import json
import pickle
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from core.processes.node_ranks import NodeRanks
from core.sglang.capabilities import Capabilities
from core.sglang.errors import EngineDied
from core.sglang.launch import WEIGHT_LOADER
from core.sglang.payload import Bucket
from core.weights.ipc import WeightIpc
from tests.support.fake_engines import FakeEngines
from tests.support.good_run import SHAPE, write_model

NUM_BUCKETS = 6
PATIENCE_S = 10.0  # of a double for the bucket that it wants to see posted before it reads
DAWDLE_S = 0.02  # and then once more: time enough to overwrite a bucket too early


def shutdown(client: FakeClient) -> None:
    with client.arrived:
        client.ended = True
        client.arrived.notify_all()


class FakeClient:
    """An engine that reads each bucket as late as it may: when the next is there already."""

    base_url = "http://double"

    def __init__(self, model_dir: Path, tensor_parallel: int, dies_at: int, replays: bool) -> None:
        self.replays = replays
        self.load_formats: set[str] = set()
        self.model_dir, self.tensor_parallel, self.dies_at = model_dir, tensor_parallel, dies_at
        self.read: dict[int, list[float]] = {}
        self.version = ""
        self.num_posted = 0
        self.ended = False
        self.arrived = threading.Condition()

    def capabilities(self) -> Capabilities:
        return Capabilities("0", frozenset(), str(self.model_dir), self.tensor_parallel, 100, self.replays)

    def post_checked(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path == "/update_weights_from_tensor":
            assert "weight_version" not in body, "others are under way"
            self._take(body["serialized_named_tensors"], body["load_format"])
        elif self.dies_at < 0:
            raise EngineDied("killed before")
        else:
            self.version = body["new_version"]
        return {"success": True}

    def forget_prefixes(self) -> None:
        pass

    def weight_version(self) -> str:
        return self.version

    def _take(self, texts: Sequence[str], load_format: str) -> None:
        with self.arrived:
            number = self.num_posted
            self.num_posted += 1
            self.arrived.notify_all()
            if number >= self.dies_at:
                raise EngineDied("killed")
            last = number == NUM_BUCKETS - 1
            self.arrived.wait_for(lambda: last or self.ended or self.num_posted > number + 1, PATIENCE_S)
        time.sleep(DAWDLE_S)
        found = [pickle.loads(base64.b64decode(text)) for text in texts]
        buffers = [one[0][1] if load_format == WEIGHT_LOADER else one["flattened_tensor"] for one in found]
        self.read[number] = [float(buffer.view(torch.float32)[0]) for buffer in buffers]
        self.load_formats.add(load_format)


class Case:
    """A sync with engines of its own; `engines`: name -> the local ranks that serve it, and the bucket it dies at."""

    def __init__(
        self, folder: Path, ranks: NodeRanks, engines: dict[str, tuple[tuple[int, ...], int]], replaying: str = ""
    ) -> None:
        """Args: replaying: the engines that have our loader."""
        self.registry: Any = FakeEngines({name: "host" for name in engines} if ranks.local_rank == 0 else {})
        for engine in self.registry.engines:
            serving, dies_at = engines[engine.name]
            engine.client = FakeClient(folder, len(serving), dies_at, engine.name in replaying)
        self.rank = ranks.local_rank
        self.way = WeightIpc(self.registry, None, ranks, lambda engine: engines[engine.name][0])

    def run(self, wrong: int = NUM_BUCKETS, posts: bool = True) -> dict[str, Any]:
        """Args: wrong: the bucket that has another shape."""
        error = ""
        before = num_texts[0]
        try:
            delivery = self.way.open(self.registry.alive(), "v1")
            for number in range(NUM_BUCKETS if posts else 0):
                size = 5 if number == wrong else 4
                delivery.post([(f"w{number}", torch.full((size,), 10.0 * number + 1000 * self.rank))])
            delivery.close()
        except Exception as raised:
            error = type(raised).__name__
        for engine in self.registry.engines:
            shutdown(engine.client)
        return {
            "error": error,
            "texts": num_texts[0] - before,
            "versions": {engine.name: engine.weight_version for engine in self.registry.engines},
            "formats": {engine.name: sorted(engine.client.load_formats) for engine in self.registry.engines},
            "read": {engine.name: sorted(engine.client.read.items()) for engine in self.registry.engines},
        }


def counted(serialize: Callable[[Bucket, bool], str]) -> Callable[[Bucket, bool], str]:
    def count(bucket: Bucket, replayed: bool) -> str:
        num_texts[0] += 1
        return serialize(bucket, replayed)

    return count


def forged(honest: NodeRanks, folder: Path) -> str:
    """Rank 1 signs with another key."""
    honest._secret = b"another" if honest.local_rank else b"key"
    try:
        return repr(honest.to_driver(b"text"))
    except Exception as error:
        return type(error).__name__


def told(ranks: NodeRanks) -> list[Any]:
    """What this rank hears of acts of the driver: its results, and what becomes of one that is too long to be told."""
    heard: list[Any] = [
        ranks.on_driver(lambda value=value: value if ranks.local_rank == 0 else "its own")
        for value in (None, True, 0, [3, 0])
    ]
    try:
        ranks.on_driver(lambda: list(range(1000)))
    except Exception as error:
        heard.append(type(error).__name__)
    return heard


NEVER = NUM_BUCKETS
num_texts = [0]

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    Bucket.serialize = counted(Bucket.serialize)  # type: ignore[method-assign]
    dist.init_process_group("gloo", timeout=timedelta(seconds=300))
    ranks = NodeRanks.meet(2, "key", 60)
    rank, model = ranks.local_rank, folder / "model"
    if dist.get_rank() == 0:
        write_model(model, SHAPE, tie_word_embeddings=False)
        save_file({f"w{number}": torch.zeros(4) for number in range(NUM_BUCKETS)}, model / "model.safetensors")
    dist.barrier()
    pair = {"a": ((0, 1), NEVER)}
    result = {
        "told": told(ranks),
        "uneven": [part.decode() for part in ranks.to_driver(b"x" * rank)],
        "two ranks": Case(model, ranks, pair).run(),
        "other order": Case(model, ranks, {"a": ((1, 0), NEVER), "b": ((1,), NEVER)}).run(),
        "replayed": Case(model, ranks, pair, "a").run(),
        "replayed by one": Case(model, ranks, {"a": ((0, 1), NEVER), "b": ((1,), NEVER)}, "a").run(),
        "death": Case(model, ranks, {"a": ((0,), NEVER), "b": ((1, 1), 1)}).run(),
        "death at once": Case(model, ranks, {"a": ((0,), NEVER), "b": ((1, 1), -1)}).run(),
        "refusal": Case(model, ranks, pair).run(wrong=2),
        "refusal at once": Case(folder / "none", ranks, pair).run(),
        "driver alone": Case(model, ranks, {"a": ((0, 0), NEVER)}).run(posts=rank == 0),
        "nobody": Case(model, ranks, {}).run(posts=rank == 0),
        "afterwards": Case(model, ranks, pair).run(),
        "forged": forged(ranks, folder),
    }
    (folder / f"rank{dist.get_rank()}.json").write_text(json.dumps(result))
    dist.destroy_process_group()
