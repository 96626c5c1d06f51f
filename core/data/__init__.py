"""Prompts from files, generators and functions. Imports no torch: a login node checks a run's data with it."""

from core.data.demonstrations import build_demonstrations, demonstrations
from core.data.prompt_source import PromptSource, Rendering, build, read_template, refuse_untold_tools, render
from core.data.rows import load_rows

__all__ = [
    "PromptSource",
    "Rendering",
    "build",
    "build_demonstrations",
    "demonstrations",
    "load_rows",
    "read_template",
    "refuse_untold_tools",
    "render",
]
