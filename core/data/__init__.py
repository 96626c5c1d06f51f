"""Prompts from files, generators and functions. Imports no torch: a login node checks a run's data with it."""

from core.data.demonstrations import build_demonstrations, demonstrations
from core.data.prompt_source import PromptSource, build, render
from core.data.rendering import Rendering, refuse_untold_tools, rendering_of
from core.data.rows import load_rows

__all__ = [
    "PromptSource",
    "Rendering",
    "build",
    "build_demonstrations",
    "demonstrations",
    "load_rows",
    "refuse_untold_tools",
    "render",
    "rendering_of",
]
