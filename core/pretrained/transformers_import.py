"""transformers, imported so that a torchvision that does not fit torch cannot take text models down with it."""

from __future__ import annotations

import importlib
import logging
import sys
from types import ModuleType
from typing import cast

logger = logging.getLogger(__name__)


def import_transformers() -> ModuleType:
    """The `transformers` package, ready to load text models.

    transformers imports torchvision wherever it is installed, for its image classes. A torchvision built for another
    torch (a CUDA build beside a CPU torch, say) fails there with a RuntimeError. Nothing here needs images, so such
    a torchvision is hidden from this process, as if it were not installed.
    """
    if "transformers" not in sys.modules:
        _hide_torchvision_if_broken()
    return importlib.import_module("transformers")


def _hide_torchvision_if_broken() -> None:
    try:
        importlib.import_module("torchvision")
    except ImportError:
        return
    except RuntimeError as error:
        logger.warning("torchvision does not fit the installed torch and is left out: %s", error)
        sys.modules["torchvision"] = cast(ModuleType, None)  # import and find_spec now both say: not installed
