"""A weight update of one engine, from the first bucket to the verified version.

    idle ── begin ──► open ── check, post, check, post, … ──► open ── end ──► done
                        └── abandon ──► the engine keeps a version that says so

While an update is open the engine's version is "<version>-incomplete": an engine that was half updated never claims a
version it does not have. A server without sessions may stamp the version itself, as it takes the last bucket.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from core.pretrained.packing import Packing
from core.sglang.capabilities import Capabilities
from core.sglang.client import EngineClient
from core.sglang.errors import EngineDied, EngineError
from core.sglang.expected import Checklist, Shapes, expected_tensors, packing_of
from core.sglang.launch import WEIGHT_LOADER
from core.sglang.payload import Bucket, NamedTensors, check_dtype

Checksums = Mapping[str, str]


class WeightUpdate:
    """Brings one engine to one version. Nothing may be generated meanwhile.

    Collective: none; the caller holds full tensors under HuggingFace names.
    """

    def __init__(
        self, client: EngineClient, version: str, expected: Mapping[str, tuple[int, ...]] | None = None
    ) -> None:
        """Prepare the update; nothing is sent yet.

        Args:
        expected: name and shape of every tensor; None: as in the engine's model directory, or of an engine that
            computes in few bits those that stand for them.
        """
        self._client = client
        self._version = version
        self._expected: Shapes | None = dict(expected) if expected is not None else None
        self._packing: Packing | None = None
        self._checklist: Checklist | None = None
        self._asked_to_stamp = False

    def begin(self) -> None:
        """Open the update, and forget cached prefixes: nothing makes new ones meanwhile. May run in a thread."""
        assert self._checklist is None, "begin() was called twice"
        capabilities = self._client.capabilities()
        if self._expected is None:
            self._expected = self._of_model(capabilities)
        stamp(self._client, f"{self._version}-incomplete")
        self._client.forget_prefixes()
        if capabilities.needs_weight_session:
            self._open()
        self._checklist = Checklist(self._expected)

    def check(self, tensors: NamedTensors) -> None:
        """Tick the tensors off, before they are sent.

        Args:
            tensors: (HuggingFace name, full tensor), all on one device; any of float32, bfloat16, float16, and
                float8_e4m3fn or int8 the numbers of what the engine has in few bits.
        Raises:
            WeightsRefused: a name the model does not have, a wrong shape or dtype, a tensor that was sent already.
        """
        assert self._checklist is not None, "check() outside begin() and end()"
        for name, tensor in tensors:
            check_dtype(name, tensor, self._numbers(name))
            self._checklist.check(name, tuple(tensor.shape))

    def may_stamp(self) -> bool:
        """Whether an engine that takes what was checked last has the version: there is no more to send or to close.

        Nothing else may be under way: of two buckets the last might arrive and the other be refused.
        """
        complete = self._checklist is not None and self._checklist.is_complete()
        return complete and not self._client.capabilities().needs_weight_session

    def post(self, texts: Sequence[str], replayed: bool = False, stamps: bool = False) -> None:
        """Have the engine take a settled bucket of checked tensors; returns when it has. May run in a thread.

        Args:
            texts: the bucket, serialised once for each tensor-parallel rank of the engine, in their order.
            replayed: they are for our loader.
            stamps: the engine stamps the version, too, if it knows how: see `may_stamp`.
        """
        load_format = WEIGHT_LOADER if replayed else "flattened_bucket"
        body = {"serialized_named_tensors": texts, "load_format": load_format, "flush_cache": False}
        stamping = {"weight_version": self._version} if stamps else {}
        self._client.post_checked("/update_weights_from_tensor", body | stamping)
        self._asked_to_stamp = stamps

    def take_broadcast(self, bucket: Bucket, group: str) -> None:
        """Have the engine receive a bucket of checked tensors in a process group; returns when it has. May run in a
        thread; the next may be asked for once this one's broadcast has begun.
        """
        body = {"names": [place.name for place in bucket.places], "group_name": group, "flush_cache": False}
        body["dtypes"] = [str(place.dtype).removeprefix("torch.") for place in bucket.places]
        body["shapes"] = [list(place.shape) for place in bucket.places]
        body["load_format"] = "flattened_bucket"
        self._client.post_checked("/update_weights_from_distributed", body)

    def end(self) -> None:
        """Close the update, stamp the version and read it back. May run in a thread.

        Whether an engine that was asked to stamp with the last bucket has done so, the version that it reports tells:
        a server that does not know how ignores what it was asked.

        Raises:
            WeightsRefused: tensors are missing. The engine stays marked incomplete.
            EngineError: the engine does not report the version.
        """
        assert self._checklist is not None, "end() without begin()"
        try:
            self._checklist.check_complete()
        finally:
            self._close()
        if self._asked_to_stamp and self._client.weight_version() == self._version:
            return
        stamp(self._client, self._version)
        verify(self._client, self._version)

    def abandon(self) -> None:
        """Give up: the engine stays marked incomplete, and takes another update."""
        if self._checklist is not None:
            self._close()

    def _of_model(self, capabilities: Capabilities) -> Shapes:
        """What the engine wants to be sent."""
        expected = expected_tensors(capabilities.model_dir)
        if not capabilities.few_bits:
            return expected
        self._packing = packing_of(capabilities.model_dir, capabilities.few_bits)
        return self._packing.shapes(expected)

    def _numbers(self, name: str) -> str:
        """What the tensor's numbers are in, if it is of a weight in few bits; else empty."""
        return self._packing.scheme.dtype if self._packing is not None and self._packing.is_numbers(name) else ""

    def _open(self) -> None:
        try:
            self._client.post_checked("/begin_weight_update", {})
        except EngineDied:
            raise
        except EngineError:  # a driver that died has left its session open
            self._client.post_checked("/end_weight_update", {})
            self._client.post_checked("/begin_weight_update", {})

    def _close(self) -> None:
        if self._client.capabilities().needs_weight_session:
            self._client.post_checked("/end_weight_update", {})
        self._checklist = None


def update_from_disk(client: EngineClient, model_dir: str | Path, version: str) -> Checksums:
    """Load a HuggingFace directory that the engine can read; its shapes must be those of the engine's model.

    Nothing may be generated meanwhile. An engine that fails over it is marked as incomplete.

    Returns:
        checksums of what it has now, told by all of its ranks. SGLang itself answers when the first of them is done,
        and the caller would remove files that others read.
    Raises:
        WeightsRefused: other names or shapes; the engine keeps what it has.
        EngineError: it cannot load them, for a reason in its own words.
    """
    checklist = Checklist(expected_tensors(client.capabilities().model_dir))
    for name, shape in expected_tensors(model_dir).items():
        checklist.check(name, shape)
    checklist.check_complete()
    body = {"model_path": str(model_dir), "load_format": "auto", "weight_version": version, "flush_cache": True}
    stamp(client, f"{version}-incomplete")
    client.post_checked("/update_weights_from_disk", body, loads=True)
    loaded = checksums(client)
    verify(client, version)
    return loaded


def checksums(client: EngineClient) -> Checksums:
    """A checksum of each tensor of the engine's model, by name and tensor-parallel rank, once all ranks answer."""
    ranks = client.post_checked("/weights_checker", {"action": "checksum"}, loads=True)["ranks"]
    return {
        f"{name}@{number}": str(value) for number, part in enumerate(ranks) for name, value in part["checksums"].items()
    }


def stamp(client: EngineClient, version: str) -> None:
    """Set the version that the engine reports, and nothing else."""
    client.post_checked("/update_weight_version", {"new_version": version, "abort_all_requests": False})


def verify(client: EngineClient, version: str) -> None:
    """Raise EngineError unless the engine reports `version`."""
    found = client.weight_version()
    if found != version:
        raise EngineError(
            f"{client.base_url} reports weight version {found}, wanted {version}: sync it again or restart it"
        )
