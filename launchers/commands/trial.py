"""The reward of a run that is about to start, called once before anything is made."""

from __future__ import annotations

from core.checks.trial import NOT_INSTALLED, can_be_tried, is_own, reward_trial
from core.config.schema import RunConfig
from launchers.commands.terminal import note, refuse


def call_reward(config: RunConfig, *, elsewhere: bool = False) -> None:
    """Call a reward of the user's own on first rows; one that cannot score ends the command.

    Args:
        elsewhere: the run is for other machines: what this one lacks is only noted.
    """
    if not is_own(config) or not can_be_tried(config):
        return
    _, mistakes = reward_trial(config)
    if elsewhere and any(NOT_INSTALLED in mistake.found for mistake in mistakes):
        note(f"the reward was not called, for want of a package on this machine: {mistakes[0].found}")
    elif mistakes:
        refuse(mistakes)
