"""Buckets of tensors: flattening, and what the other process gets."""

from __future__ import annotations

import base64
import multiprocessing
import pickle
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.sglang.errors import WeightsRefused
from core.sglang.expected import expected_tensors
from core.sglang.payload import ALIGNMENT_BYTES, Bucket
from tests.support.tiny_models import tiny_model


def mixed() -> list[tuple[str, torch.Tensor]]:
    return [
        ("odd", torch.arange(3, dtype=torch.bfloat16)),  # 6 bytes: the next would start unaligned
        ("wide", torch.randn(2, 5)),
        ("strided", torch.randn(4, 3).t()),
        ("scalar", torch.tensor(1.5, dtype=torch.float16)),
    ]


def test_a_bucket_holds_copies_in_one_buffer_and_can_be_filled_again() -> None:
    bucket = Bucket()
    for tensors in (mixed(), mixed(), mixed()[:2], mixed(), mixed()):
        bucket.release()
        bucket.fill(tensors)
        bucket.settle()
        views = bucket.views()
        assert len({view.untyped_storage().data_ptr() for _, view in views}) == 1
        for (name, tensor), (view_name, view) in zip(tensors, views, strict=True):
            assert name == view_name
            assert view.storage_offset() * view.element_size() % ALIGNMENT_BYTES == 0
            torch.testing.assert_close(view, tensor, rtol=0, atol=0)


def test_a_layout_is_told_by_the_same_text_as_long_as_names_shapes_and_dtypes_are_the_same() -> None:
    bucket, texts = Bucket(), []
    for tensors in (mixed(), mixed(), mixed()[::-1], mixed()[1:]):
        bucket.fill(tensors)
        texts.append(bucket.layout())
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3


def receive(pipe: Connection) -> None:
    """As SGLang's FlattenedTensorBucket does it."""
    while text := pipe.recv():
        found = pickle.loads(base64.b64decode(text))
        for meta in found["metadata"]:
            tensor = found["flattened_tensor"][meta.start_idx : meta.end_idx].view(meta.dtype).reshape(meta.shape)
            pipe.send((meta.name, str(tensor.dtype), tensor.float().tolist()))
    pipe.close()


def test_another_process_sees_the_tensors() -> None:
    bucket = Bucket()
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=receive, args=(there,), daemon=True)
    process.start()
    there.close()
    for _ in range(2):
        tensors = mixed()
        bucket.fill(tensors)
        text = bucket.serialize()
        assert len(text) < 4000
        here.send(text)
        for name, tensor in tensors:
            assert here.poll(60), "the other process said nothing for 60 s"
            assert here.recv() == (name, str(tensor.dtype), tensor.float().tolist())
    here.send("")
    process.join(60)
    assert process.exitcode == 0


@pytest.mark.parametrize("kind", ["llama", "llama-tied", "qwen2", "qwen3-tied"])
def test_expected_tensors_are_the_models(kind: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    directory = tiny_model(kind, tmp_path / kind)
    model = AutoModelForCausalLM.from_pretrained(directory)
    assert expected_tensors(directory) == {name: tuple(p.shape) for name, p in model.named_parameters()}


def test_a_stored_tied_head_is_not_expected(tmp_path: Path) -> None:
    directory = tiny_model("llama-tied", tmp_path)
    wanted = expected_tensors(directory)
    expected_tensors.cache_clear()
    file = directory / "model.safetensors"
    save_file({**load_file(file), "lm_head.weight": torch.zeros(512, 64)}, file)
    assert expected_tensors(directory) == wanted


def test_no_weights_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsRefused, match=r"without \*\.safetensors"):
        expected_tensors(tmp_path)
