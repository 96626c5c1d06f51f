"""Samples as packed rows, and the values that the loss needs of them."""
