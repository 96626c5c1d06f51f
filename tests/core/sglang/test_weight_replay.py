"""Our loader in the engine: the second bucket of a layout arrives as the first one did, or is loaded as ever."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

import pytest
import torch
from torch import nn

from core.sglang.launch import ENGINE_SITE
from core.sglang.payload import Bucket, NamedTensors

Loader = Callable[["Model", NamedTensors], None]


class Model(nn.Module):
    """`fused` holds q above k, `tail` the second half of what is sent; how they get there is `loader`'s affair."""

    def __init__(self, loader: Loader) -> None:
        super().__init__()
        self.fused = nn.Parameter(torch.zeros(4, 3))
        self.tail = nn.Parameter(torch.zeros(2, 2, dtype=torch.bfloat16))
        self.twice = torch.zeros(4, 3)  # no parameter
        self.loader = loader
        self.num_loads = 0

    def load_weights(self, tensors: NamedTensors) -> None:
        self.num_loads += 1
        self.loader(self, tensors)


def plain(model: Model, tensors: NamedTensors) -> None:
    for name, tensor in tensors:
        if name == "tail":
            model.tail.data.copy_(tensor.narrow(1, 2, 2))  # a strided slice, and a cast
        else:
            model.fused.data.narrow(0, 0 if name == "q" else 2, 2).copy_(tensor)
    model.tail.data[2:].fill_(0)  # padding of nothing, as embeddings have it


def computed(model: Model, tensors: NamedTensors) -> None:
    plain(model, [(name, tensor * 1 if name == "q" else tensor) for name, tensor in tensors])


def derived(model: Model, tensors: NamedTensors) -> None:
    plain(model, tensors)
    model.twice = 2 * model.fused.detach()


def zeroed(model: Model, tensors: NamedTensors) -> None:
    plain(model, tensors)
    model.tail.data[1:].zero_()


def overlapping(model: Model, tensors: NamedTensors) -> None:
    plain(model, tensors)
    model.fused.data[1:3].copy_(tensors[0][1])


def forgetful(model: Model, tensors: NamedTensors) -> None:
    plain(model, tensors[1:])


def rebuilding(model: Model, tensors: NamedTensors) -> None:
    model.tail.data = torch.zeros_like(model.tail)
    plain(model, tensors)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Loader:
    """Sends tensors in a bucket."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ENGINE_SITE)])
    from ebbtide_weight_replay import load as load_bucket

    def send(model: Model, tensors: NamedTensors) -> None:
        bucket = Bucket()
        bucket.fill(tensors)
        load_bucket(model, [(bucket.layout(), bucket.contents())])

    return send


def tensors(seed: int, width: int = 3) -> list[tuple[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"q": (2, width), "tail": (2, 4), "k": (2, width)}
    return [(name, torch.randn(shape, generator=generator)) for name, shape in shapes.items()]


def assert_loaded(model: Model, loader: Loader, seed: int) -> None:
    wanted = Model(loader)
    wanted.load_weights(tensors(seed))
    for name, found in (*model.named_parameters(), ("twice", model.twice)):
        torch.testing.assert_close(found, getattr(wanted, name), rtol=0, atol=0)


def test_what_was_only_copied_is_copied_again(load: Loader) -> None:
    model = Model(plain)
    for seed in range(3):
        load(model, tensors(seed))
        assert_loaded(model, plain, seed)
    assert model.num_loads == 1


@pytest.mark.parametrize("loader", [computed, derived, zeroed, overlapping, forgetful, rebuilding])
def test_what_is_more_than_copies_is_always_loaded(load: Loader, loader: Loader) -> None:
    model = Model(loader)
    for seed in range(4):
        load(model, tensors(seed))
        assert_loaded(model, loader, seed)
    assert model.num_loads == 4


def test_layouts_and_models_are_told_apart(load: Loader) -> None:
    model, other = Model(plain), Model(plain)
    for seed, some in ((0, model), (1, other), (2, model)):
        load(some, tensors(seed))
    load(model, tensors(3)[::-1])
    assert_loaded(model, plain, 3)
    assert_loaded(other, plain, 1)
    assert (model.num_loads, other.num_loads) == (2, 1)


def test_parameters_that_move_are_found_and_in_the_end_left_alone(
    load: Loader,
) -> None:
    model = Model(plain)
    for seed in range(6):
        model.fused.data = torch.zeros_like(model.fused)
        load(model, tensors(seed))
        assert_loaded(model, plain, seed)
    assert model.num_loads == 6
    load(model, tensors(7))
    assert_loaded(model, plain, 7)


def test_a_refused_bucket_leaves_nothing_to_replay(load: Loader) -> None:
    model = Model(plain)
    with pytest.raises(RuntimeError):
        load(model, tensors(0, width=5))
    load(model, tensors(1))
    load(model, tensors(2))
    assert_loaded(model, plain, 2)


def test_a_factor_that_goes_nowhere_is_told(load: Loader) -> None:
    """SGLang's own loaders say no more than a warning."""
    model = Model(lambda model, tensors: plain(model, tensors[:-1]))
    for name in ("down_proj.weight_scale_inv", "down_proj.weight_scale"):
        with pytest.raises(RuntimeError, match=rf"has no place for {re.escape(name)} \(1 such\)"):
            load(model, [*tensors(0), (name, torch.ones(2, 2))])
    load(model, [*tensors(0), ("unknown", torch.ones(2, 2))])  # others may be left out: a tied output layer


def test_factors_that_are_computed_with_went_somewhere(load: Loader) -> None:
    """As those of what makes few numbers of a token, of which SGLang makes one matrix first."""
    model = Model(lambda model, tensors: plain(model, [(tensors[0][0], torch.cat([tensors[0][1]])), *tensors[1:3]]))
    factor, *others = [("q.weight_scale_inv", torch.ones(2, 3)), *tensors(0)[1:]]
    load(model, [factor, *others])
    assert model.num_loads == 1
