"""Families of models, one module each: a file that is put here, with a `FAMILY`, is known everywhere."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from modelcfg.family import Family


@cache
def families() -> dict[str, Family]:
    """Every family by its model type, in alphabetical order."""
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    return {module.FAMILY.model_type: module.FAMILY for module in modules}
