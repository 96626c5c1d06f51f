"""Weight gradients that are added by the matrix product."""

from __future__ import annotations

import pytest
import torch

from core.megatron.state.weight_gradients import add_weight_gradient

CASES = [
    pytest.param("cpu", torch.float32),
    pytest.param("cpu", torch.bfloat16),
    pytest.param("cuda", torch.float32, marks=pytest.mark.gpu),
    pytest.param("cuda", torch.bfloat16, marks=pytest.mark.gpu),
]


@pytest.mark.parametrize(("device", "dtype"), CASES)
@pytest.mark.parametrize("tokens", [0, 1, 300])
def test_the_product_is_added_in_place(device: str, dtype: torch.dtype, tokens: int) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    torch.manual_seed(0)
    inputs, gradient = (torch.randn(tokens, size, dtype=dtype, device=device) for size in (256, 128))
    main_grad = torch.randn(128, 256, device=device)
    wanted = main_grad.double() + gradient.double().t() @ inputs.double()
    where = main_grad.data_ptr()
    add_weight_gradient(inputs, gradient, main_grad)
    assert main_grad.data_ptr() == where
    product_in_bfloat16 = device == "cpu" and dtype == torch.bfloat16
    torch.testing.assert_close(main_grad.double(), wanted, atol=0.3 if product_in_bfloat16 else 1e-3, rtol=0)
