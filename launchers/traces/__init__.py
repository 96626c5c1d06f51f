"""Traces of a step: of each trainer rank, all ranks in one, and where the time went."""
