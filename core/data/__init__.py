"""Prompts from files, generators and functions. Imports no torch: a login node checks a run's data with it."""

from core.data.prompt_source import PromptSource, build
from core.data.rows import load_rows

__all__ = ["PromptSource", "build", "load_rows"]
