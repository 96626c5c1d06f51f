"""The section `logging` of a run file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from core.config.sections.section import NonNegativeInt, Section


def _named(value: Any) -> Any:
    """A name alone stands for a mapping with it."""
    return {"name": value} if isinstance(value, str) else value


class SinkConfig(Section):
    """A sink of metrics, with its options. Just its name: one without options."""

    name: str = Field(description="tensorboard, wandb, or module.py:Class / package.module:Class of your own")
    options: dict[str, Any] = Field(default_factory=dict, description="its keyword arguments")


class LoggingConfig(Section):
    """What is written beside the trajectory store."""

    sinks: tuple[Annotated[SinkConfig, BeforeValidator(_named)], ...] = Field(
        (SinkConfig(name="tensorboard"),),
        description="where metrics go: tensorboard, wandb, or module.py:Class of your own; an entry is a name, or a "
        "mapping with name and options",
        json_schema_extra={"default": ["tensorboard"]},
    )
    tensorboard: bool | None = Field(
        None, description="an older key: false: without the sink tensorboard; true: with it, whatever `sinks` says"
    )
    level: Literal["debug", "info", "warning"] = Field(
        "info", description="least level in the logs of trainer rank 0, node agents and reward servers"
    )
    show_samples: NonNegativeInt = Field(
        1, description="samples of each step that the log shows; sinks show this number of the best and of the worst"
    )
