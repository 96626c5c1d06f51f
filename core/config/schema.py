"""The run file as frozen, typed sections. Every key of a run file is declared here or in `sections/`, and nowhere else.

Light on purpose: no torch, so a login node can check a run file. Rules that need more than one key live in
`core/checks/`.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from core.config.sections.algorithm import AlgorithmConfig
from core.config.sections.checkpoint import CheckpointConfig
from core.config.sections.critic import CriticConfig
from core.config.sections.data import DataConfig
from core.config.sections.eval import EvalConfig
from core.config.sections.logging import LoggingConfig
from core.config.sections.model import ModelConfig
from core.config.sections.placement import PlacementConfig
from core.config.sections.reward import RewardConfig
from core.config.sections.rollout import RolloutConfig
from core.config.sections.section import Section
from core.config.sections.slurm import SlurmConfig
from core.config.sections.train import TrainConfig


class RunConfig(Section):
    """A whole run file."""

    name: str = Field("run", description="used in the run directory's name")
    model: ModelConfig
    data: DataConfig
    rollout: RolloutConfig
    reward: RewardConfig = RewardConfig()
    algorithm: AlgorithmConfig = AlgorithmConfig()
    critic: CriticConfig = CriticConfig()
    train: TrainConfig
    placement: PlacementConfig = PlacementConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()
    slurm: SlurmConfig = SlurmConfig()
    runs_dir: Path = Field(Path("runs"), description="where run directories are made")

    @property
    def sample_tokens(self) -> int:
        """Tokens of the longest sample, its prompt included."""
        return self.data.max_prompt_tokens + self.rollout.max_response_tokens
