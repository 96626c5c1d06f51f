"""One sink that passes everything on to all sinks of a run file's `logging.sinks`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from core.config.sections.logging import LoggingConfig, SinkConfig
from core.doors import SINK
from core.sinks.sink import RunInfo, ShownSample, ShowsSamples, Sink

log = logging.getLogger(__name__)


def wanted_sinks(config: LoggingConfig) -> tuple[SinkConfig, ...]:
    """The sinks of `sinks`, with or without TensorBoard where the older key `tensorboard` says so."""
    others = tuple(sink for sink in config.sinks if sink.name != "tensorboard")
    if config.tensorboard is None:
        return config.sinks
    return (SinkConfig(name="tensorboard"), *others) if config.tensorboard else others


class FanOut:
    """Tells all sinks. What one of them raises is logged, once per sink, and keeps nobody from the rest."""

    def __init__(self, sinks: Sequence[SinkConfig], run: RunInfo) -> None:
        """Make them, and tell them that the run begins; one that cannot be made or begin is left out."""
        self._names: dict[int, str] = {}
        self._failures: dict[int, int] = {}
        self._sinks: dict[int, Sink] = {}
        for index, sink in enumerate(sinks):
            self._names[index] = sink.name
            self._try(index, lambda index=index, sink=sink: self._open(index, sink, run))  # type: ignore[misc]

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Tell them of a complete step."""
        self._tell(lambda sink: sink.step(step, metrics))

    def samples(self, step: int, samples: Sequence[ShownSample]) -> None:
        """Tell those that show samples of some of a complete step."""
        self._tell(lambda sink: sink.samples(step, samples) if isinstance(sink, ShowsSamples) else None)

    def evaluation(self, step: int, results: Mapping[str, Mapping[str, float]]) -> None:
        """Tell them of an evaluation."""
        self._tell(lambda sink: sink.evaluation(step, results))

    def end(self) -> None:
        """Tell them that the attempt ends."""
        self._tell(lambda sink: sink.end())
        for index, failures in self._failures.items():
            log.warning("sink=%s failures=%d: some metrics are missing there", self._names[index], failures)

    def _open(self, index: int, config: SinkConfig, run: RunInfo) -> None:
        sink: Sink = SINK.build(config.name, config.options)
        sink.begin(run)
        self._sinks[index] = sink

    def _tell(self, act: Callable[[Sink], None]) -> None:
        for index, sink in self._sinks.items():
            self._try(index, lambda sink=sink: act(sink))  # type: ignore[misc]

    def _try(self, index: int, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception:
            if index not in self._failures:
                log.exception("sink=%s failed; the run goes on, and further failures are counted", self._names[index])
            self._failures[index] = self._failures.get(index, 0) + 1
