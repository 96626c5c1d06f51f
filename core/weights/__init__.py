"""Weights from the trainer to the engines: three ways, one proof."""
