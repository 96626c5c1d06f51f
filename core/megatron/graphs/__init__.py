"""Rows as CUDA graphs: padded to few lengths, captured once, replayed."""
