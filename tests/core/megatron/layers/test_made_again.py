"""Outputs that a backward pass makes again."""

from __future__ import annotations

import weakref

import torch

from core.megatron.layers.made_again import _making_again, made_again


def test_an_output_is_not_held_once_the_layer_is_computed() -> None:
    given = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    with _making_again():
        output = made_again(lambda x: x * x, given)
        result = output * output  # saves it for its backward pass
    held = weakref.ref(output)
    del output
    assert held() is None, "the graph keeps what it makes again"
    result.sum().backward()
    assert given.grad is not None
    assert given.grad.tolist() == [4.0, -32.0, 108.0], "4 x^3"
