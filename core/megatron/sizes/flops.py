"""Arithmetic that an update needs, and what GPUs can do at most: for the share that is used (MFU). Pure, without torch.

Counted is what forward and backward need, not what recomputing repeats: 6 operations per matrix parameter and token,
the output layer only where a token is predicted, of experts those that a token goes to, and causal attention at half of
the square. Left out: norms, rotary angles, the optimiser, and passes that only look up log-probs.
"""

from __future__ import annotations

from modelcfg.shape import ModelShape

# dense bf16, by NVIDIA's data sheets; the first that stands in a device's name
PEAKS = (
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("H200", 989e12),
    ("H800", 989e12),
    ("B200", 2250e12),
    ("A100", 312e12),
    ("A800", 312e12),
    ("L40S", 362e12),
)


def peak_flops(device_name: str) -> float | None:
    """Operations per second of a GPU, by the name that its driver gives it; None: it is not known."""
    return next((peak for name, peak in PEAKS if name in device_name), None)


def update_flops(shape: ModelShape, tokens: float, targets: float, pairs: float) -> float | None:
    """Operations of forward and backward.

    Args:
        tokens: that pass the layers.
        targets: that are predicted.
        pairs: of tokens that attend to each other.
    Returns:
        None: not known, of latent attention, of delta nets and of windows.
    """
    if shape.latent is not None or shape.delta is not None or shape.window is not None:
        return None
    hidden, layers = shape.hidden_size, range(shape.num_layers)
    attention = hidden * (2 * shape.query_size + 2 * shape.key_value_size)
    matrices = sum(attention + hidden * _feed_forward(shape, layer) for layer in layers)
    linear = 6 * (matrices * tokens + shape.vocab_size * hidden * targets)
    return linear + 12 * shape.num_layers * shape.query_size * pairs


def _feed_forward(shape: ModelShape, layer: int) -> int:
    """Columns of a layer's matrices that a token meets beside attention's, the router's among them."""
    if shape.has_experts(layer):
        used = shape.experts_per_token * shape.ffn_hidden_size + shape.shared_ffn_hidden_size
        return 3 * used + shape.num_experts
    return 3 * (shape.dense_ffn_hidden_size or shape.ffn_hidden_size)
