"""The trainer on Megatron-core. Nothing outside this package imports megatron."""

import warnings

from core.megatron import jit

# megatron says once per module that transformer engine and apex are not installed: they are not meant to be
warnings.filterwarnings("ignore", module=r"megatron\.")
jit.install()
