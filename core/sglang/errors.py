"""What can go wrong with an engine."""

from __future__ import annotations


class EngineError(RuntimeError):
    """The engine answered, but not with what was asked for."""


class EngineDied(EngineError):
    """The engine is gone, or hangs past its deadline: nothing more can be expected from this incarnation."""


class EngineTimeout(EngineDied):
    """No answer within the deadline. The process may still be there: whoever owns it should kill it."""


class RequestRefused(ValueError):
    """A request that was not sent, because it would kill the engine or be cut short by it."""


class WeightsRefused(ValueError):
    """Tensors that were not sent, because the engine would die of them or ignore them without a word."""
