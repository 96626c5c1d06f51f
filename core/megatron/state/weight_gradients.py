"""Weight gradients that the matrix product itself adds to the gradient buffer.

Otherwise the product is written out in the model's precision, and read again to be added. Megatron leaves this to apex,
under a name it imports where apex is installed; here that name stands for torch's own products.
Legend: T row tokens, I inputs, O outputs of a linear layer.
"""

from __future__ import annotations

import types

import torch
from megatron.core.tensor_parallel import layers
from torch import Tensor


def install() -> None:
    """Give Megatron's linear layers the product; once per process is enough. Collective: none."""
    layers.fused_weight_gradient_mlp_cuda = types.SimpleNamespace(wgrad_gemm_accum_fp32=add_weight_gradient)
    layers._grad_accum_fusion_available = True


def add_weight_gradient(inputs: Tensor, gradient: Tensor, main_grad: Tensor) -> None:
    """main_grad += gradient^T inputs, summed in float32.

    Args:
        inputs: [T, I], gradient: [T, O], both in the model's precision.
        main_grad: [O, I] float32, changed in place.
    """
    if inputs.dtype == main_grad.dtype:
        main_grad.addmm_(gradient.t(), inputs)
    elif inputs.is_cuda:
        torch.addmm(main_grad, gradient.t(), inputs, out_dtype=main_grad.dtype, out=main_grad)
    else:  # a CPU has no product of bfloat16 that gives float32
        main_grad.add_(gradient.t() @ inputs)
